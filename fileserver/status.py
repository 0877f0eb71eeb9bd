"""The only map between our errors and google.rpc.Status: DESIGN section 9 as a table, both ways.

What goes out is bounded (gRPC refuses trailing metadata over 8 KiB and would hide the error behind its own): a long
message, long facts and many violations are cut, and say so.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode, aio

from fileserver import errors as ours
from fileserver.calls import Call, CallerGone, Interceptor
from planes import errors as planes

DOMAIN: Final = "cropduster"
DETAILS: Final = "grpc-status-details-bin"

CODES: Final[dict[type[planes.Error], StatusCode]] = {
    planes.Error: StatusCode.INTERNAL,
    planes.NotFound: StatusCode.NOT_FOUND,
    planes.AlreadyExists: StatusCode.ALREADY_EXISTS,
    planes.Changed: StatusCode.ABORTED,
    planes.Refused: StatusCode.FAILED_PRECONDITION,
    planes.Missing: StatusCode.FAILED_PRECONDITION,
    planes.Full: StatusCode.FAILED_PRECONDITION,
    planes.PathEscapes: StatusCode.INVALID_ARGUMENT,
    planes.Unsupported: StatusCode.UNIMPLEMENTED,
    planes.OutOfRange: StatusCode.OUT_OF_RANGE,
    planes.Throttled: StatusCode.RESOURCE_EXHAUSTED,
    planes.Unavailable: StatusCode.UNAVAILABLE,
    planes.Corrupt: StatusCode.DATA_LOSS,
    ours.InvalidSpec: StatusCode.INVALID_ARGUMENT,
    ours.CallerUnknown: StatusCode.UNAUTHENTICATED,
    ours.CallerDenied: StatusCode.PERMISSION_DENIED,
    ours.FileNotFound: StatusCode.NOT_FOUND,
    ours.PlaneNotFound: StatusCode.NOT_FOUND,
    ours.TransferNotFound: StatusCode.NOT_FOUND,
    ours.WatchNotFound: StatusCode.NOT_FOUND,
    ours.TargetChanged: StatusCode.ABORTED,
    ours.TargetBusy: StatusCode.ABORTED,
    ours.RecordTooLong: StatusCode.FAILED_PRECONDITION,
    ours.FormatMismatch: StatusCode.FAILED_PRECONDITION,
    ours.ServerBusy: StatusCode.RESOURCE_EXHAUSTED,
    ours.ServerUnavailable: StatusCode.UNAVAILABLE,
    ours.Cancelled: StatusCode.CANCELLED,
}
"""Every error class of both trees; a test walks the trees and proves the table total."""

_LATER: Final = frozenset({StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE})
"""Codes that carry RetryInfo: the same call may succeed later."""
_RETRY_AFTER: Final = 1.0  # seconds, where the error doesn't say

_BY_NUMBER: Final = {c.value[0]: c for c in StatusCode}
_LONGEST_MESSAGE: Final = 900  # bytes; travels percent-encoded, up to thrice that
_LONGEST_FACT: Final = 300
_LARGEST: Final = 3072  # bytes of a Status; travels in base64

_log = structlog.stdlib.get_logger(__name__)


def code(error: planes.Error) -> StatusCode:
    """The gRPC code of an error of either tree."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def to_status(error: planes.Error) -> status_pb2.Status:
    """The error on the wire: code, message, ErrorInfo, RetryInfo where waiting helps, every field violation."""
    status = status_pb2.Status(code=code(error).value[0], message=_cut(error.message, _LONGEST_MESSAGE))
    facts = {name: _cut(value, _LONGEST_FACT) for name, value in error.facts.items()}
    _pack(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts))
    if code(error) in _LATER:
        wait = error_details_pb2.RetryInfo()
        seconds = _RETRY_AFTER if error.retry_after is None else error.retry_after
        wait.retry_delay.FromNanoseconds(round(seconds * 1e9))
        _pack(status, wait)
    if isinstance(error, ours.InvalidSpec) and error.violations:
        _pack(status, _violations(error.violations, _LARGEST - status.ByteSize()))
    return status


def from_status(status: status_pb2.Status) -> planes.Error:
    """The error that `to_status` put on the wire; for a Status of another origin the nearest of ours."""
    reason, facts, violations, retry_after = "", dict[str, str](), dict[str, str](), None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, facts = info.reason if info.domain == DOMAIN else "", dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            wait = error_details_pb2.RetryInfo()
            detail.Unpack(wait)
            retry_after = _seconds(wait.retry_delay)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = {v.field: v.description for v in bad.field_violations}
    kind = ours.BY_REASON.get(reason) or _nearest(_BY_NUMBER.get(status.code, StatusCode.UNKNOWN))
    return ours.remade(kind, status.message, facts, retry_after=retry_after, violations=violations)


def from_call(error: grpc.RpcError) -> planes.Error:
    """The error of a failed call, as a caller of another file server sees it."""
    assert isinstance(error, grpc.Call | aio.AioRpcError)
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    return _nearest(error.code())(error.details() or error.code().name)


def _nearest(found: StatusCode) -> type[planes.Error]:
    """What a bare gRPC code means to us: only what a connection or a deadline can say by itself.

    RESOURCE_EXHAUSTED without RetryInfo is gRPC's own ("message too large"): no error that is tried again.
    """
    if found in {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}:
        return ours.ServerUnavailable
    return ours.Cancelled if found is StatusCode.CANCELLED else planes.Error


def _seconds(delay: duration_pb2.Duration) -> float:
    return delay.seconds + delay.nanos / 1e9


def _pack(
    status: status_pb2.Status,
    detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest,
) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _violations(violations: dict[str, str], room: int) -> error_details_pb2.BadRequest:
    """As many violations as there is room for, in bytes, and how many more there are."""
    bad = error_details_pb2.BadRequest()
    room -= 128  # for the detail's own type name and for the last line
    for number, (field, description) in enumerate(violations.items()):
        bad.field_violations.add(field=_cut(field, 200), description=_cut(description, 400))
        if bad.ByteSize() > room:
            del bad.field_violations[-1]
            rest = len(violations) - number
            bad.field_violations.add(field="…", description=f"and {rest} more")
            break
    return bad


def _cut(text: str, most: int) -> str:
    """The text in at most `most` bytes of UTF-8; surrogates (file names that are no UTF-8) are escaped."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data.decode("utf-8")
    return data[: most - 3].decode("utf-8", "ignore") + "…"


@asynccontextmanager
async def around(call: Call) -> AsyncIterator[None]:
    """Answer an error of ours with its status, and anything else with the id of a log line and nothing more."""
    try:
        yield
    except planes.Error as error:
        await _abort(call, to_status(error))
    except aio.AbortError:
        raise  # answered already
    except CallerGone:
        raise asyncio.CancelledError from None  # as gRPC itself ends a call whose caller goes between two writes
    except Exception:  # noqa: BLE001  # see below
        # The outermost place of a call: whatever gets here is a bug, and its text may hold what no caller should see.
        line = secrets.token_hex(8)
        _log.exception("bug", id=line, method=call.method)
        msg = f"a bug in the file server: its log tells more under the id {line}"
        await _abort(call, to_status(planes.Error(msg, id=line)))


async def _abort(call: Call, status: status_pb2.Status) -> None:
    details = ((DETAILS, status.SerializeToString()),)
    try:
        await call.context.abort(_BY_NUMBER[status.code], status.message, details)
    except aio.InternalError:  # the caller has gone and will never know
        raise asyncio.CancelledError from None


class ErrorInterceptor(Interceptor):
    """Turns errors that servicers raise into their status; the outermost interceptor of every server of ours."""

    def __init__(self) -> None:
        super().__init__(around)
