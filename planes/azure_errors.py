"""The one place where the words of Azure and of its SDK become ours: by code, status and type, never by text."""

from __future__ import annotations

import binascii
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests
import urllib3.exceptions
from azure.core import exceptions as sdk

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
    sdk.AzureError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    binascii.Error,
    OSError,
)
"""Everything that a request can fail with; all else is a bug and stays what it is."""

_BY_CODE: Final[dict[str, type[Error]]] = {
    "ContainerNotFound": Missing,
    "BlobNotFound": NotFound,
    "ResourceNotFound": NotFound,
    "InvalidBlockList": NotFound,  # a block of the list is gone: another commit of the blob has dropped it
    "SourceConditionNotMet": Changed,
    "Crc64Mismatch": Corrupt,
    "Md5Mismatch": Corrupt,
    "InvalidRange": OutOfRange,
    "InvalidSourceRange": OutOfRange,
    "ApiNotImplemented": Unsupported,
    "APINotImplemented": Unsupported,
    "FeatureNotSupported": Unsupported,
    "UnsupportedHeader": Unsupported,
    "UnsupportedHttpVerb": Unsupported,
    "ContainerBeingDeleted": Unavailable,
    "InternalError": Unavailable,
    "OperationTimedOut": Unavailable,
    "IncompleteBody": Unavailable,
    "ServerBusy": Throttled,
    "AccountBandwidthLimitExceeded": Throttled,
    "AccountIopsLimitExceeded": Throttled,
    # 412, but not about what is there:
    "LeaseIdMissing": Refused,
    "LeaseIdMismatchWithBlobOperation": Refused,
    "LeaseLost": Refused,
}
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
_CONDITIONS: Final = {"ConditionNotMet", "TargetConditionNotMet", "BlobAlreadyExists"}
_SOURCE: Final = "CannotVerifyCopySource"
_WAYS_OUT: Final = {
    "AuthenticationFailed": "the account does not accept the credential: correct {credential}, and set the clock",
    "AuthorizationFailure": "the account does not accept the credential: correct {credential}",
    "InvalidAuthenticationInfo": "the account does not understand the credential: correct {credential}",
    "NoAuthenticationInformation": "the account wants a credential: set account_key or sas of the plane",
    "AuthorizationPermissionMismatch": "{credential} lacks the permission for this",
    "AuthorizationProtocolMismatch": "{credential} holds for another protocol: use https",
    "InsufficientAccountPermissions": "the owner of {credential} lacks the permission for this",
    "KeyBasedAuthenticationNotPermitted": "the account forbids keys: leave {credential} out and use an identity",
    "PublicAccessNotPermitted": "the account wants a credential: set account_key or sas of the plane",
    "LeaseIdMissing": "somebody holds a lease on it: break that, or wait until it ends",
    "LeaseLost": "somebody holds a lease on it: break that, or wait until it ends",
    "InvalidBlobOrBlock": (
        "another program has an unfinished upload of the same blob: finish or remove that, or wait a week until "
        "Azure forgets it"
    ),
    "InvalidBlobType": "a blob of another type holds the key: delete that first",
    "InvalidMetadata": "the names of its metadata are not those of Azure: letters, digits and `_` only",
    "SnapshotsPresent": "it has snapshots, which are not ours to delete: remove them first",
    "BlobImmutableDueToPolicy": "a policy of the container makes it immutable",
    "BlobArchived": "it is archived: rehydrate it first",
    "AccountIsDisabled": "the account is disabled",
    "BlockCountExceedsLimit": "it has too many blocks: use larger steps",
}
_USUAL: Final[dict[type[Error], str]] = {
    Corrupt: "the service received other bytes than were sent",
    Full: "no space is left, or a quota is used up",
    OutOfRange: "the object does not have these bytes",
    Throttled: "the service asks us to slow down",
    Unavailable: "the service failed",
    Unsupported: "the service cannot do this",
}
_ABSENT: Final[dict[type[Error], str]] = {
    NotFound: "it is not there",
    Changed: "it has vanished",
    Missing: "the container {container!r} does not exist: create it, or correct `container` of the plane",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Words for messages: which plane, where, and the setting that its credential comes from."""

    plane: str
    container: str
    credential: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was for, and what two answers mean there.

    `precondition` is the meaning of 412 and of 409 BlobAlreadyExists, `absent` of an object that is not there.
    """

    verb: str
    key: str
    precondition: type[Error] = Changed
    absent: type[Error] = NotFound


def translate(failure: BaseException, asked: Asked, place: Place) -> Error:
    """The error of ours for one of `FAILURES`; its facts are `plane`, `container`, `key` and, if known, `code`."""
    if isinstance(failure, sdk.HttpResponseError) and failure.response is not None:
        response: Any = failure.response  # of any of the SDK's transports
        headers = response.headers
        return answered(failure.status_code or 0, headers.get("x-ms-error-code", ""), headers, asked, place)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(failure)):
        return _make(Refused, asked, place, "its certificate is not trusted: name its authority in `ca`", "certificate")
    if isinstance(failure, sdk.ClientAuthenticationError | binascii.Error):
        words = f"no usable credential was found: correct {place.credential}"
        return _make(Refused, asked, place, words, type(failure).__name__)
    return _make(Unavailable, asked, place, "the service does not answer properly", type(failure).__name__)


def answered(status: int, code: str, headers: Mapping[str, str], asked: Asked, place: Place) -> Error:
    """The error of ours for an answer with this status and code."""
    kind = _kind(status, code)
    if kind is None:
        kind = asked.precondition
        words = "it is not what was expected" if kind is Changed else "an object with this key exists"
    elif kind is NotFound and code == "InvalidBlockList":
        words = "blocks of it are gone: another write of the same blob has dropped them"
    elif kind is NotFound:
        kind = asked.absent
        words = _ABSENT[kind]
    elif kind is Missing:
        words = _ABSENT[kind]
    elif kind is Refused and code == _SOURCE:
        words = "Azure cannot read the source: it is not reachable from there, or does not accept our grant"
    elif kind is Refused and status in {401, 403} and code not in _WAYS_OUT:
        words = "the service refused: check {credential} and its permissions"
    else:
        words = _WAYS_OUT.get(code, _USUAL.get(kind, "the service refused"))
    words = words.format(container=place.container, credential=place.credential)
    after = headers.get("retry-after", "") or headers.get("Retry-After", "")
    return _make(kind, asked, place, words, code or str(status), float(after) if after.isdecimal() else None)


def _kind(status: int, code: str) -> type[Error] | None:
    """The class for an answer; None where the caller's precondition decides."""
    if code == _SOURCE:  # the status is the one that the source answered with
        return Changed if status == 412 else _BY_STATUS.get(status, Unavailable if status >= 500 else Refused)
    if code in _CONDITIONS:
        return None
    known = _BY_CODE.get(code)
    if known is None and status == 412:
        return None
    return known or _BY_STATUS.get(status) or (Unavailable if status >= 500 else Refused)


def _make(
    kind: type[Error], asked: Asked, place: Place, words: str, code: str, retry_after: float | None = None
) -> Error:
    what = f"{asked.verb} {asked.key!r}" if asked.key else asked.verb
    msg = f"plane {place.plane!r}: cannot {what}: {words} ({code})"
    return kind(msg, retry_after=retry_after, plane=place.plane, container=place.container, key=asked.key, code=code)


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """The failure and what it wraps: the SDK keeps the original in `inner_exception`, urllib3 in `reason` or `args`."""
    seen: BaseException | None = failure
    for _ in range(10):
        if seen is None:
            return
        yield seen
        inner = getattr(seen, "inner_exception", None) or getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((each for each in seen.args if isinstance(each, BaseException)), None)
        seen = inner or seen.__cause__ or seen.__context__


def doubtful(error: Error) -> bool:
    """Whether a write that failed like this may have happened all the same (or an earlier sending of it did)."""
    return isinstance(error, Unavailable | Throttled | AlreadyExists | NotFound)
