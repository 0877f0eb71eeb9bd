"""Who we are at Azure: the client of one account, and addresses that are signed for a single blob."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import requests
import requests.adapters
from azure.core.credentials import TokenCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, UserDelegationKey, generate_blob_sas

from planes.azure_settings import AzureSettings
from planes.direct import LIFE
from planes.errors import Refused
from planes.plane import MIB
from planes.settings import MOST_REQUESTS, Secret

CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 60
_GRANT: Final = timedelta(minutes=15)
"""How long an address that we sign can be used."""
_LENT: Final = timedelta(seconds=LIFE)
_DELEGATION: Final = timedelta(hours=2)
_AHEAD: Final = timedelta(minutes=5)  # so much our clock may be ahead of the service's
_SCOPE: Final = "https://storage.azure.com/.default"
_VERSION: Final = "2023-11-03"  # of the protocol, for requests that are not the SDK's

for _noisy in ("azure", "urllib3.connectionpool"):
    # They tell of every request: the one with all its headers, the other with what addresses were signed with.
    if logging.getLogger(_noisy).level == logging.NOTSET:
        logging.getLogger(_noisy).setLevel(logging.WARNING)


class Account:
    """The account of one plane; its client is made at the first use."""

    def __init__(self, name: str, settings: AzureSettings) -> None:
        self._name = name
        self._settings = settings
        self._lock = threading.RLock()
        self._service: BlobServiceClient | None = None
        self._token: TokenCredential | None = None
        self._delegation: tuple[UserDelegationKey, datetime] | None = None

    @property
    def url(self) -> str:
        """The address of the account, without credential."""
        return (self._settings.account_url or self.service().primary_endpoint.partition("?")[0]).rstrip("/")

    def signed(self, container: str, name: str) -> str:
        """An address by which this one blob can be read for a quarter of an hour; in a thread, for it may ask.

        By an account's key it is signed here, by an identity with a delegated key that the service hands out. A plane
        that is configured with a SAS can sign nothing: it hands out its own, which may reach further.
        """
        return self.lent(container, name, "r", _GRANT) or str(self.service().get_blob_client(container, name).url)

    def lent(self, container: str, name: str, permission: str, life: timedelta = _LENT) -> str | None:
        """An address by which this one blob can be used as `permission` says; None if there is nothing to sign with."""
        service = self.service()
        blob = service.get_blob_client(container, name)
        expiry = datetime.now(UTC) + life
        key = getattr(service.credential, "account_key", None)
        if key is None and self._token is None:
            return None
        proof: Any = {"account_key": key} if key else {"user_delegation_key": self._delegated(service, expiry)}
        account = str(service.account_name)
        sas = generate_blob_sas(account, container, name, permission=permission, expiry=expiry, **proof)
        return f"{blob.url}?{sas}"

    def readable(self, container: str, name: str) -> tuple[str, dict[str, str]]:
        """Address and headers of a GET of a blob; in a thread, for it may ask."""
        service = self.service()
        if self._token is None:
            return self.signed(container, name), {}
        token = self._token.get_token(_SCOPE).token
        headers = {"Authorization": f"Bearer {token}", "x-ms-version": _VERSION}
        return str(service.get_blob_client(container, name).url), headers

    def _delegated(self, service: BlobServiceClient, expiry: datetime) -> UserDelegationKey:
        with self._lock:
            if self._delegation is None or self._delegation[1] < expiry:
                until = datetime.now(UTC) + _DELEGATION
                self._delegation = (service.get_user_delegation_key(datetime.now(UTC) - _AHEAD, until), until)
            return self._delegation[0]

    def service(self) -> BlobServiceClient:
        """The client of the account, made at the first call."""
        with self._lock:
            if self._service is None:
                try:
                    self._service = self._connect()
                except (ValueError, OSError) as wrong:  # no address, no connection string, no file of certificates
                    msg = (
                        f"plane {self._name!r}: its `account_url`, `connection_string` or `ca` cannot be used "
                        f"({type(wrong).__name__})"
                    )
                    raise Refused(msg, plane=self._name) from None  # the cause may quote the secret
            return self._service

    def _connect(self) -> BlobServiceClient:
        settings = self._settings
        session = requests.Session()
        session.hooks["response"].append(_refuse_what_is_not_azures)
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=MOST_REQUESTS, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        options: Any = {
            "transport": RequestsTransport(
                session=session,
                connection_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                connection_verify=str(settings.ca) if settings.ca else True,
            ),
            # The SDK's retries turn a success into a failure: a commit sent twice is answered 409.
            "retry_total": 0,
            "max_single_put_size": 5000 * MIB,
            "user_agent": "cropduster",
        }
        if settings.connection_string:
            return BlobServiceClient.from_connection_string(settings.connection_string.resolve(), **options)
        assert settings.account_url is not None
        credential: Any = None
        if settings.account_key:
            credential = settings.account_key.resolve()
        elif settings.sas:
            credential = settings.sas.resolve()
        else:
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - slow, and seldom needed

            credential = self._token = DefaultAzureCredential()
        return BlobServiceClient(settings.account_url, credential=credential, **options)

    def close(self) -> None:
        """Let connections go."""
        if self._service:
            self._service.close()


def _refuse_what_is_not_azures(answer: requests.Response, *_: object, **__: object) -> None:
    """Take no success from whoever else answers in between, or with an error in it: the SDK would read facts in it."""
    if answer.request.method == "POST":  # a key to sign with: Azurite says no version there
        return
    if answer.ok and ("x-ms-version" not in answer.headers or "x-ms-error-code" in answer.headers):
        answer.close()
        msg = f"{answer.status_code} without the headers of Azure"
        raise requests.exceptions.ConnectionError(msg)


def credential_in_words(settings: AzureSettings) -> str:
    """Where the credential of a plane comes from, for messages."""
    named: dict[str, Secret | None] = {
        "connection_string": settings.connection_string,
        "account_key": settings.account_key,
        "sas": settings.sas,
    }
    for option, secret in named.items():
        if secret:
            return f"{option} ({secret.reference})"
    return "the identity of this process (none is configured: the SDK's own chain)"
