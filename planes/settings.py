"""What every plane can be configured with, and how a secret is named without being written down.

The settings of one provider are a subclass in the provider's own module. Nothing here holds a secret: a `Secret`
is the place where one is to be found, and is resolved at the moment of use.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator
from pydantic_core import PydanticCustomError

from planes import incluster
from planes.errors import Refused

_LONGEST = 64 * 1024  # a file that holds a key is short; a wrong path (a device, a data file) must not fill memory


_KUBERNETES: Final = re.compile(r"([a-z0-9.-]+/){1,2}[A-Za-z0-9._-]+")

MOST_REQUESTS: Final = 1024
"""In flight, of any plane. Only `PlaneLimits` bounds them: threads and connections are made when they are needed."""


class PlaneLimits(BaseModel):
    """How hard a plane may be driven; also changed while it runs.

    Of the requests allowed, as many are in flight as the provider takes (`planes.window`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    requests: int = Field(default=64, ge=1, le=MOST_REQUESTS, description="Requests in flight at most.")
    bytes_per_second: int = Field(default=0, ge=0, description="Bytes a second at most; 0 is no limit.")


class PlaneSettings(BaseModel):
    """What all planes have in common; a provider's subclass adds `type` and what it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str = Field(description="The provider; a subclass narrows it to its own name.")
    category: Literal["data", "lz"] = Field(default="data", description="`lz` marks a landing zone.")
    default_parts: int = Field(default=1, ge=1, description="Parts of a spray that names no number.")
    limits: PlaneLimits = PlaneLimits()
    transfers: int = Field(
        default=0, ge=0, description="Transfers that write to it at once, over all file servers; 0 is no limit."
    )

    @property
    def location(self) -> str:
        """Where the plane is, without credentials: a directory, or bucket and endpoint."""
        return ""


class Secret(BaseModel):
    """Where a secret is found: `{env: NAME}`, `{file: PATH}` or `{kubernetes: NAME/KEY}`, exactly one of them.

    Surrounding white space (the newline at the end of a file) is not part of the secret.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"minProperties": 1, "maxProperties": 1},
    )

    env: str = Field(default="", description="Name of an environment variable.")
    file: Path | None = Field(default=None, description="Absolute path of a file.")
    kubernetes: str = Field(
        default="", description="NAME/KEY of a secret in the server's own namespace, or NAMESPACE/NAME/KEY."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _is_a_reference(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse anything but a reference; the offered text never reaches the error, it may be the secret itself."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise _not_a_reference()
        given = {name: place for name, place in value.items() if place is not None and place != ""}
        if len(given) != 1 or not given.keys() <= {"env", "file", "kubernetes"}:
            raise _not_a_reference()
        if not isinstance(next(iter(given.values())), str | Path):
            raise _not_a_reference()
        if "kubernetes" in given and not _KUBERNETES.fullmatch(str(given["kubernetes"])):
            raise PydanticCustomError("secret_kubernetes", "a secret of Kubernetes is NAME/KEY or NAMESPACE/NAME/KEY")  # noqa: EM101 - an error type
        if "file" in given and not Path(given["file"]).is_absolute():
            raise PydanticCustomError("secret_file", "the file of a secret must be an absolute path")  # noqa: EM101 - an error type
        return handler(given)

    @property
    def reference(self) -> str:
        """The place in words, for messages."""
        if self.kubernetes:
            return f"Kubernetes secret {self.kubernetes}"
        return f"environment variable {self.env}" if self.env else f"file {self.file}"

    def resolve(self) -> str:
        """The secret itself; read anew at each call, so that a rotated one is found.

        Raises:
            Refused: the variable is not set, the file cannot be read, Kubernetes refuses, or there is nothing in it.
            Unavailable: Kubernetes does not answer.
        """
        if self.kubernetes:
            value = incluster.secret(self.kubernetes).strip()
            if not value:
                msg = f"the {self.reference} is empty: it should hold a secret"
                raise Refused(msg, reference=self.reference)
            return value
        if self.env:
            value = os.environ.get(self.env, "")
            if not value.strip():
                msg = f"the {self.reference} is not set: set it for the server, or correct the configuration"
                raise Refused(msg, reference=self.reference)
            return value.strip()
        assert self.file is not None
        try:
            with self.file.open("rb") as opened:
                value = opened.read(_LONGEST).decode("utf-8").strip()
        except OSError as error:
            msg = f"the secret in {self.reference} cannot be read: {error.strerror}"
            raise Refused(msg, reference=self.reference) from error
        except UnicodeDecodeError:
            # Without its cause: the exception carries the bytes of the file.
            msg = f"the secret in {self.reference} is not UTF-8 text"
            raise Refused(msg, reference=self.reference) from None
        if not value:
            msg = f"the {self.reference} is empty: it should hold a secret"
            raise Refused(msg, reference=self.reference)
        return value


def _not_a_reference() -> PydanticCustomError:
    return PydanticCustomError(
        "secret_reference",
        "a secret is not written here but named: {env: NAME} for an environment variable, "
        "{file: /absolute/path} for a file that holds it, or {kubernetes: NAME/KEY}",
    )
