"""What can go wrong in the file server itself; the plane's own errors are in `planes.errors`, the same tree.

Error (planes.errors)
├── InvalidSpec      the request is wrong; every field at once
├── CallerUnknown    no or wrong credentials of the caller
├── CallerDenied     the caller may not do this
├── FileNotFound, PlaneNotFound, TransferNotFound, WatchNotFound
├── TargetChanged    the target is not what it was when the transfer began
├── TargetBusy       another transfer holds the target
├── RecordTooLong, FormatMismatch    the data is not what the format says
├── ServerBusy       try again, or another replica (retriable)
├── ServerUnavailable    the file server itself is ending or does not answer (an Unavailable, retriable)
└── Cancelled        the transfer was cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from planes import errors as plane_errors
from planes.errors import Error


class InvalidSpec(Error):
    """The request is wrong; `violations` names every field and what is wrong with it."""

    reason = "INVALID_SPEC"

    def __init__(self, message: str, violations: dict[str, str] | None = None, **facts: str) -> None:
        super().__init__(message, retry_after=None, **facts)
        self.violations = violations or {}


def refuse(wrong: dict[str, str]) -> None:
    """Raise InvalidSpec with every field that is wrong, if any is; what is wrong with several is said once."""
    if wrong:
        raise InvalidSpec("; ".join(dict.fromkeys(wrong.values())), wrong)


class CallerUnknown(Error):
    """No or wrong credentials of the caller; the fact `cookie` names the file that holds the right ones."""

    reason = "CALLER_UNKNOWN"


class CallerDenied(Error):
    """The caller is known and may not do this."""

    reason = "CALLER_DENIED"


class FileNotFound(Error):
    """No logical file has this name."""

    reason = "FILE_NOT_FOUND"


class PlaneNotFound(Error):
    """No configured plane has this name."""

    reason = "PLANE_NOT_FOUND"


class TransferNotFound(Error):
    """No transfer has this name, or it ended more than 30 days ago."""

    reason = "TRANSFER_NOT_FOUND"


class WatchNotFound(Error):
    """No watch has this name, or nothing of that key has arrived there."""

    reason = "WATCH_NOT_FOUND"


class TargetChanged(Error):
    """The target is not what it was when the transfer began."""

    reason = "TARGET_CHANGED"


class TargetBusy(Error):
    """Another transfer, named in the message, holds the target."""

    reason = "TARGET_BUSY"


class RecordTooLong(Error):
    """No record ends within the limit."""

    reason = "RECORD_TOO_LONG"


class FormatMismatch(Error):
    """The data is not what the format says."""

    reason = "FORMAT_MISMATCH"


class ServerBusy(Error):
    """The server has no room for this call now."""

    reason = "SERVER_BUSY"
    retriable = True


class ServerUnavailable(plane_errors.Unavailable):
    """The file server itself is ending, or the connection to it broke: another replica, or the next one, answers."""

    reason = "SERVER_UNAVAILABLE"


class Cancelled(Error):
    """The transfer was cancelled by request."""

    reason = "CANCELLED"


def _tree(root: type[Error]) -> dict[str, type[Error]]:
    found = {root.reason: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_REASON: Final = _tree(plane_errors.Error)
"""Every error class by its reason."""


def to_record(error: Error) -> dict[str, Any]:
    """Plain data for the store and for job steps; `from_record` makes the same error of it."""
    record: dict[str, Any] = {"reason": error.reason, "message": error.message, "facts": error.facts}
    if isinstance(error, InvalidSpec):
        record["violations"] = error.violations
    return record


def from_record(record: dict[str, Any]) -> Error:
    """The error that `to_record` described; an unknown reason (of a newer version) becomes a plain Error."""
    kind = BY_REASON.get(record["reason"], Error)
    return remade(kind, record["message"], record["facts"], violations=record.get("violations"))


def remade(
    kind: type[Error],
    message: str,
    facts: Mapping[str, str],
    *,
    retry_after: float | None = None,
    violations: dict[str, str] | None = None,
) -> Error:
    """An error that was told by somebody else: however its facts are called, they are facts."""
    made = InvalidSpec(message, violations) if kind is InvalidSpec else kind(message, retry_after=retry_after)
    made.facts.update(facts)
    return made
