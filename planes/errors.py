"""What can go wrong at a plane: one small tree, raised by every provider in the same words.

    Error
    ├── NotFound        the object is not there
    ├── AlreadyExists   the object is there and was not to be replaced
    ├── Changed         the object is not the version that was pinned
    ├── Refused         the plane will not do it: credentials, permissions, a configuration that cannot work
    │   ├── Missing     the bucket, container or root directory itself is not there
    │   ├── Full        no space, or a quota is used up
    │   └── PathEscapes a key, `..` or a symlink leads out of the plane
    ├── Unsupported     this provider has no such ability
    ├── OutOfRange      bytes were asked for that the object does not have
    ├── Throttled       the provider asks us to slow down (retriable)
    ├── Unavailable     the provider does not answer properly (retriable)
    └── Corrupt         a size or a checksum is not what it must be (retriable, once a step)

Providers translate their SDK's exceptions in one place and raise nothing else. Every variable word of a message
is also in `facts`, so that no caller has to read the text. Nothing here holds a secret: query strings and
credentials are struck before a message is made.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """A failure that has a meaning; `reason` is its stable name on the wire.

    Args:
        message: one sentence that names the thing and the place, and where possible the way out.
        retry_after: seconds that the provider asked us to wait, if it said so.
        facts: the variable words of the message by name (`plane`, `key`, `offset`, …), all text.
    """

    reason: ClassVar[str] = "BUG"
    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.facts = facts


class NotFound(Error):
    """The object is not there."""

    reason = "OBJECT_NOT_FOUND"


class AlreadyExists(Error):
    """The target exists and was not to be replaced."""

    reason = "TARGET_EXISTS"


class Changed(Error):
    """The object is not the version that was pinned."""

    reason = "SOURCE_CHANGED"


class Refused(Error):
    """The plane will not do it, and trying again will not help."""

    reason = "PLANE_REFUSED"


class Missing(Refused):
    """The bucket, container or root directory of the plane is not there."""

    reason = "PLANE_MISSING"


class Full(Refused):
    """No space is left, or a quota is used up."""

    reason = "PLANE_FULL"


class PathEscapes(Refused):
    """A key, a `..` or a symlink leads out of the plane."""

    reason = "PATH_ESCAPES"


class Unsupported(Error):
    """This provider has no such ability."""

    reason = "NOT_SUPPORTED"


class OutOfRange(Error):
    """Bytes were asked for that the object does not have."""

    reason = "OFFSET_MISMATCH"


class Throttled(Error):
    """The provider asks us to slow down."""

    reason = "PLANE_THROTTLED"
    retriable = True


class Unavailable(Error):
    """The provider does not answer, or not properly."""

    reason = "PLANE_UNAVAILABLE"
    retriable = True


class Corrupt(Error):
    """A size or a checksum is not what it must be; tried once more a step, then final."""

    reason = "CHECKSUM_MISMATCH"
    retriable = True
