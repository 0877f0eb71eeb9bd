"""Times that a server tells, in words; whatever it tells. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_UNKNOWN: Final = "unknown"


def moment(told: Timestamp) -> str | None:
    """As RFC 3339; None where it is not known, or in no year that there is."""
    if not told.seconds and not told.nanos:
        return None
    try:
        return told.ToJsonString()
    except ValueError:
        return None


def whole(told: Timestamp) -> str:
    """For people."""
    return moment(told) or _UNKNOWN


def brief(told: Timestamp) -> str:
    """For tables: to the second."""
    text = moment(told)
    return f"{text[:19]}Z" if text else _UNKNOWN
