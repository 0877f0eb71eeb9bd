"""What a call can end with, as one exception, and the exit code that the CLI makes of it.

The inverse of the server's map from its errors to google.rpc.Status: reasons are stable names, texts are for people
and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    import grpc

    from fileserver.v1.transfer_pb2 import Failure

DOMAIN: Final = "cropduster"
"""The ErrorInfo domain of our reasons; another domain's reasons mean something else."""


class Exit(IntEnum):
    """Exit codes of the CLI (DESIGN, section 9)."""

    OK = 0
    BUG = 1
    BAD_REQUEST = 2
    DENIED = 3
    NOT_FOUND = 4
    EXISTS = 5
    CHANGED = 6
    REFUSED = 7
    UNAVAILABLE = 8
    CORRUPT = 9
    TOO_SLOW = 10
    EXCEPTIONS = 11
    CANCELLED = 130


class Reason(StrEnum):
    """The stable names of what can go wrong, as in ErrorInfo; a newer server may know more.

    SERVER_UNAVAILABLE and TRANSFER_ENDED are the client's own: no server says them.
    """

    INVALID_SPEC = "INVALID_SPEC"
    PATH_ESCAPES = "PATH_ESCAPES"
    CALLER_UNKNOWN = "CALLER_UNKNOWN"
    CALLER_DENIED = "CALLER_DENIED"
    OBJECT_NOT_FOUND = "OBJECT_NOT_FOUND"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    PLANE_NOT_FOUND = "PLANE_NOT_FOUND"
    TRANSFER_NOT_FOUND = "TRANSFER_NOT_FOUND"
    WATCH_NOT_FOUND = "WATCH_NOT_FOUND"
    TARGET_EXISTS = "TARGET_EXISTS"
    SOURCE_CHANGED = "SOURCE_CHANGED"
    TARGET_CHANGED = "TARGET_CHANGED"
    TARGET_BUSY = "TARGET_BUSY"
    PLANE_REFUSED = "PLANE_REFUSED"
    PLANE_MISSING = "PLANE_MISSING"
    PLANE_FULL = "PLANE_FULL"
    RECORD_TOO_LONG = "RECORD_TOO_LONG"
    FORMAT_MISMATCH = "FORMAT_MISMATCH"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    OFFSET_MISMATCH = "OFFSET_MISMATCH"
    PLANE_THROTTLED = "PLANE_THROTTLED"
    SERVER_BUSY = "SERVER_BUSY"
    SERVER_UNAVAILABLE = "SERVER_UNAVAILABLE"
    PLANE_UNAVAILABLE = "PLANE_UNAVAILABLE"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    TRANSFER_ENDED = "TRANSFER_ENDED"
    CANCELLED = "CANCELLED"
    BUG = "BUG"


class Code(IntEnum):
    """Status codes of google.rpc.Code; here so that plain words need no gRPC import."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


BY_REASON: Final[Mapping[str, Exit]] = {
    Reason.INVALID_SPEC: Exit.BAD_REQUEST,
    Reason.PATH_ESCAPES: Exit.BAD_REQUEST,
    Reason.CALLER_UNKNOWN: Exit.DENIED,
    Reason.CALLER_DENIED: Exit.DENIED,
    Reason.OBJECT_NOT_FOUND: Exit.NOT_FOUND,
    Reason.FILE_NOT_FOUND: Exit.NOT_FOUND,
    Reason.PLANE_NOT_FOUND: Exit.NOT_FOUND,
    Reason.TRANSFER_NOT_FOUND: Exit.NOT_FOUND,
    Reason.WATCH_NOT_FOUND: Exit.NOT_FOUND,
    Reason.TARGET_EXISTS: Exit.EXISTS,
    Reason.SOURCE_CHANGED: Exit.CHANGED,
    Reason.TARGET_CHANGED: Exit.CHANGED,
    Reason.TARGET_BUSY: Exit.CHANGED,
    Reason.PLANE_REFUSED: Exit.REFUSED,
    Reason.PLANE_MISSING: Exit.REFUSED,
    Reason.PLANE_FULL: Exit.REFUSED,
    Reason.RECORD_TOO_LONG: Exit.REFUSED,
    Reason.FORMAT_MISMATCH: Exit.REFUSED,
    Reason.NOT_SUPPORTED: Exit.REFUSED,
    Reason.OFFSET_MISMATCH: Exit.REFUSED,
    Reason.TRANSFER_ENDED: Exit.REFUSED,
    Reason.PLANE_THROTTLED: Exit.UNAVAILABLE,
    Reason.SERVER_BUSY: Exit.UNAVAILABLE,
    Reason.SERVER_UNAVAILABLE: Exit.UNAVAILABLE,
    Reason.PLANE_UNAVAILABLE: Exit.UNAVAILABLE,
    Reason.CHECKSUM_MISMATCH: Exit.CORRUPT,
    Reason.CANCELLED: Exit.CANCELLED,
    Reason.BUG: Exit.BUG,
}
"""The exit code of every reason that this version knows."""

BY_CODE: Final[Mapping[Code, Exit]] = {
    Code.INVALID_ARGUMENT: Exit.BAD_REQUEST,
    Code.UNAUTHENTICATED: Exit.DENIED,
    Code.PERMISSION_DENIED: Exit.DENIED,
    Code.NOT_FOUND: Exit.NOT_FOUND,
    Code.ALREADY_EXISTS: Exit.EXISTS,
    Code.ABORTED: Exit.CHANGED,
    Code.FAILED_PRECONDITION: Exit.REFUSED,
    Code.UNIMPLEMENTED: Exit.REFUSED,
    Code.OUT_OF_RANGE: Exit.REFUSED,
    Code.RESOURCE_EXHAUSTED: Exit.UNAVAILABLE,
    Code.UNAVAILABLE: Exit.UNAVAILABLE,
    Code.DATA_LOSS: Exit.CORRUPT,
    Code.DEADLINE_EXCEEDED: Exit.TOO_SLOW,
    Code.CANCELLED: Exit.CANCELLED,
}
"""The exit code where the reason is none of ours; every other code is a bug."""


class ServerError(Exception):
    """A call or a transfer that failed, or a request that the client itself refused in the same words.

    Args:
        reason: stable name as in ErrorInfo; empty if the answer carried none (a broken connection, a proxy).
        code: google.rpc.Code.
        message: for people; names the thing, the place and the way out.
        metadata: the variable words of the message by name.
        violations: for a bad request, what is wrong with each field, all at once.
        retry_after: seconds after which trying again makes sense; None if the server did not say so.
    """

    def __init__(
        self,
        reason: str,
        code: Code,
        message: str,
        metadata: Mapping[str, str] | None = None,
        violations: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = dict(violations or {})
        self.retry_after = retry_after

    def renamed(self, names: Mapping[str, str]) -> ServerError:
        """The same error, whose message calls things by other names; for programs the metadata stay."""
        violations = {field: rename(text, names) for field, text in self.violations.items()}
        return ServerError(
            self.reason, self.code, rename(self.message, names), self.metadata, violations, self.retry_after
        )

    @property
    def exit(self) -> Exit:
        """The CLI's exit code: by reason, else by code."""
        return BY_REASON.get(self.reason) or BY_CODE.get(self.code, Exit.BUG)


def rename(text: str, names: Mapping[str, str]) -> str:
    """A message that calls things by other names: `names` has the new one by the old."""
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def bad_request(violations: Mapping[str, str]) -> ServerError:
    """The error of a request that the client refuses before any call: what is wrong, by option or argument."""
    if len(violations) == 1:
        [message] = (f"{field}: {sentence}" for field, sentence in violations.items())
    else:
        message = f"the command is wrong in {len(violations)} places"
    return ServerError(Reason.INVALID_SPEC, Code.INVALID_ARGUMENT, message, violations=violations)


def invalid(message: str, **metadata: str) -> ServerError:
    """The error of a setting that the client cannot work with."""
    return ServerError(Reason.INVALID_SPEC, Code.INVALID_ARGUMENT, message, metadata)


def unavailable(message: str, **metadata: str) -> ServerError:
    """The error of a server that does not answer and is not waited for any longer."""
    return ServerError(Reason.SERVER_UNAVAILABLE, Code.UNAVAILABLE, message, metadata)


def broken(message: str) -> ServerError:
    """The error of a connection that broke: no answer, so no reason."""
    return ServerError("", Code.UNAVAILABLE, message)


def as_call(error: grpc.RpcError) -> grpc.Call:
    """The call that a raised error is at the same time; grpc documents that, and its types contradict it."""
    return cast("grpc.Call", error)


def from_rpc(error: grpc.RpcError) -> ServerError:
    """The exception of a failed call, with all that its status details say."""
    # Only failures pay for these imports.
    from google.rpc import error_details_pb2  # noqa: PLC0415
    from grpc_status import rpc_status  # noqa: PLC0415

    call = as_call(error)
    code = _known(call.code().value[0])
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # details that contradict the status: a proxy rewrote one of them
        status = None
    if status is None and code is Code.UNIMPLEMENTED:
        msg = (
            "that server does not offer this at that address: it is of another version, or callers from outside cannot "
            "have it (bytes and parts are for its internal address)"
        )
        return ServerError("", code, msg)
    if status is None:
        return ServerError("", code, _text(call))
    reason, retry_after = "", None
    metadata: dict[str, str] = {}
    violations: dict[str, str] = {}
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            if info.domain == DOMAIN:
                reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after = delay.seconds + delay.nanos / 1e9
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest.FromString(detail.value)
            violations |= {v.field: v.description for v in request.field_violations}
    return ServerError(reason, code, status.message, metadata, violations, retry_after)


def from_failure(failure: Failure, transfer: str) -> ServerError:
    """The exception of an error that is stored in a transfer, which is named in its metadata."""
    return ServerError(
        failure.reason, _known(failure.code), failure.message, {**failure.metadata, "transfer": transfer}
    )


def _known(number: int) -> Code:
    return Code(number) if number in set(Code) else Code.UNKNOWN


def _text(error: grpc.Call) -> str:
    said = error.details()
    return f"the server answered {error.code().name}" + (f": {said}" if said else "")
