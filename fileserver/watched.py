"""Sections of the configuration for those who watch a server: from other machines, without TLS and without secrets."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def well_formed(value: object) -> object:
    """HOST:PORT, or the absolute path of a unix socket; raises ValueError for other text."""
    if not isinstance(value, str) or value.startswith("/"):
        return value
    _, separator, port = value.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        msg = f'{value} is no address: write HOST:PORT like "127.0.0.1:7300", or the absolute path of a unix socket'
        raise ValueError(msg)
    return value


Reachable = Annotated[str, BeforeValidator(well_formed)]


class MetricsSettings(BaseModel):
    """What a Prometheus may ask."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    listen: Reachable = Field(
        pattern="^[^/]", description="HOST:PORT where anybody may ask for numbers, in the clear; they hold no secret."
    )
