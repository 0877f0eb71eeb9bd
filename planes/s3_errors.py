"""The one place where the words of S3 and of its SDK become ours: by code, status and type, never by text."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from planes.errors import (
    AlreadyExists,
    Changed,
    Corrupt,
    Error,
    Full,
    Missing,
    NotFound,
    OutOfRange,
    Refused,
    Throttled,
    Unavailable,
    Unsupported,
)

FAILURES: Final = (
    sdk.BotoCoreError,
    sdk.ClientError,
    ResponseParserError,
    http.client.HTTPException,
    OSError,
)
"""Everything that a request can fail with; all else is a bug and stays what it is."""

_NO_ANSWER: Final = (sdk.ConnectionError, sdk.HTTPClientError, sdk.IncompleteReadError, ResponseParserError)

_BY_CODE: Final[dict[str, type[Error]]] = {
    "NoSuchBucket": Missing,
    "NoSuchKey": NotFound,
    "NoSuchUpload": NotFound,
    "NoSuchVersion": NotFound,
    "BadDigest": Corrupt,
    "InvalidPart": Corrupt,
    "XAmzContentChecksumMismatch": Corrupt,
    "XAmzContentSHA256Mismatch": Corrupt,
    "InvalidRange": OutOfRange,
    "NotImplemented": Unsupported,
    "MethodNotAllowed": Unsupported,
    "IncompleteBody": Unavailable,
    "InternalError": Unavailable,
    "OperationAborted": Unavailable,
    "RequestTimeout": Unavailable,
    "BandwidthLimitExceeded": Throttled,
    "RequestLimitExceeded": Throttled,
    "ServiceUnavailable": Throttled,
    "SlowDown": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "TooManyRequests": Throttled,
    "QuotaExceeded": Full,
    "QuotaExceededException": Full,
    "XMinioAdminBucketQuotaExceeded": Full,
    "XMinioStorageFull": Full,
}
_CONFLICT: Final = "ConditionalRequestConflict"
_BY_STATUS: Final[dict[int, type[Error]]] = {
    404: NotFound,
    405: Unsupported,
    408: Unavailable,
    416: OutOfRange,
    429: Throttled,
    501: Unsupported,
    503: Throttled,
    507: Full,
}
_WAYS_OUT: Final = {
    "InvalidAccessKeyId": "the store does not know this access key: correct {access_key}",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key: correct {secret_key}",
    "ExpiredToken": "the session token has expired: renew {session_token}",
    "InvalidToken": "the session token is not valid: correct {session_token}",
    "RequestTimeTooSkewed": "the clocks of this host and of the store differ too much: set the clock",
    "AccessDenied": "the owner of {access_key} lacks the permission for this",
    "AuthorizationHeaderMalformed": "the store expects another region: correct `region` of the plane",
    "PermanentRedirect": "the bucket is in another region: correct `region` or `endpoint` of the plane",
    "InvalidObjectState": "the object is archived: restore it at the store first",
    "EntityTooSmall": "a step that is not the last has less than 5 MiB",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Words for messages: which plane, where, and the settings that its credentials come from."""

    plane: str
    bucket: str
    access_key: str
    secret_key: str
    session_token: str
    endpoint: str = ""
    """As configured; empty for Amazon S3."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was for, and what two answers mean there.

    `precondition` is the meaning of 412 and 409 (but a 409 is never Changed), `absent` of an object that is not there.
    """

    verb: str
    key: str
    precondition: type[Error] = Changed
    absent: type[Error] = NotFound


def translate(failure: BaseException, asked: Asked, place: Place) -> Error:
    """The error of ours for one of `FAILURES`; its facts are `plane`, `bucket`, `key` and, if known, `code`."""
    if isinstance(failure, sdk.ClientError):
        return _answered(failure, asked, place)
    if isinstance(failure, ssl.SSLCertVerificationError) or _untrusted(failure):
        where = _endpoint(failure, place)
        words = f"the certificate{where and f' of {where}'} is not trusted: name its authority in `ca`"
        return _make(Refused, asked, place, words, "certificate")
    if isinstance(failure, sdk.NoCredentialsError | sdk.PartialCredentialsError | sdk.CredentialRetrievalError):
        return _make(Refused, asked, place, "no credentials were found: set access_key and secret_key", "credentials")
    if isinstance(failure, _NO_ANSWER) or not isinstance(failure, sdk.BotoCoreError):
        where = _endpoint(failure, place)
        words = f"the store{where and f' at {where}'} does not answer properly: see whether it runs, and `endpoint`"
        return _make(Unavailable, asked, place, words, type(failure).__name__)
    return _make(Refused, asked, place, "the SDK refuses the request", type(failure).__name__)


def _answered(failure: sdk.ClientError, asked: Asked, place: Place) -> Error:
    said = failure.response
    code = said.get("Error", {}).get("Code", "")
    answer = said.get("ResponseMetadata", {})
    status = answer.get("HTTPStatusCode", 0)
    kind = _kind(code, status)
    if kind is None:
        kind = asked.precondition
        if kind is Changed and code == _CONFLICT:  # says nothing of versions: another write of the key is under way
            kind = Unavailable
        words = "it is not what was expected" if kind is not AlreadyExists else "an object with this key exists"
    elif kind is NotFound and code != "NoSuchUpload":
        kind = asked.absent
        words = _ABSENT[kind].format(bucket=place.bucket)
    elif kind is NotFound:
        words = "its open upload has ended or was aborted"
    elif kind is Missing:
        words = _ABSENT[kind].format(bucket=place.bucket)
    elif kind is Refused and status in {401, 403} and code not in _WAYS_OUT:
        words = f"the store refused: check {place.access_key} and {place.secret_key}, and their permissions"
    else:
        words = _WAYS_OUT.get(code, _USUAL.get(kind, "the store refused")).format(
            access_key=place.access_key, secret_key=place.secret_key, session_token=place.session_token
        )
    after = answer.get("HTTPHeaders", {}).get("retry-after", "")
    return _make(kind, asked, place, words, code or str(status), float(after) if after.isdecimal() else None)


_ABSENT: Final[dict[type[Error], str]] = {
    NotFound: "it is not there",
    Changed: "it has vanished",
    Missing: "the bucket {bucket!r} does not exist: create it, or correct `bucket` of the plane",
}
_USUAL: Final[dict[type[Error], str]] = {
    Corrupt: "the store found another checksum than was sent, or misses a step",
    Full: "no space is left, or a quota is used up",
    OutOfRange: "the object does not have these bytes",
    Throttled: "the store asks us to slow down",
    Unavailable: "the store failed",
    Unsupported: "the store cannot do this",
}


def _kind(code: str, status: int) -> type[Error] | None:
    """The class for an answer; None where the caller's precondition decides."""
    if code in {"PreconditionFailed", _CONFLICT} or status == 412:
        return None
    known = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if known:
        return known
    # A 200 with an error in its body reaches us as 500 with the code of the body.
    return Unavailable if status >= 500 and code not in _WAYS_OUT else Refused


def _make(
    kind: type[Error], asked: Asked, place: Place, words: str, code: str, retry_after: float | None = None
) -> Error:
    what = f"{asked.verb} {asked.key!r}" if asked.key else asked.verb
    msg = f"plane {place.plane!r}: cannot {what}: {words} ({code})"
    return kind(msg, retry_after=retry_after, plane=place.plane, bucket=place.bucket, key=asked.key, code=code)


def _endpoint(failure: BaseException, place: Place) -> str:
    """Scheme, host and port that were asked, as configured or as the SDK tells; user names and queries stay behind."""
    told = (getattr(cause, "kwargs", {}).get("endpoint_url") for cause in _causes(failure))
    url = urlsplit(place.endpoint or next(filter(None, told), ""))
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}" if url.netloc else ""


def _untrusted(failure: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(failure))


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """The failure and what it wraps; the SDK keeps the original in `kwargs["error"]`, urllib3 in `reason`."""
    seen: BaseException | None = failure
    for _ in range(8):
        if seen is None:
            return
        yield seen
        inner = getattr(seen, "kwargs", {}).get("error") or getattr(seen, "reason", None)
        seen = inner if isinstance(inner, BaseException) else (seen.__cause__ or seen.__context__)


def doubtful(error: Error) -> bool:
    """Whether a write that failed like this may have happened all the same (or an earlier sending of it did).

    A store that asks us to slow down is not asked to be looked at either: sending the write again will tell.
    """
    return isinstance(error, Unavailable | AlreadyExists | NotFound)
