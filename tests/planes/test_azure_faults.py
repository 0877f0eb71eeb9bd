"""Whatever goes wrong between us and Azure: the verb completes or says one clear error, and leaves no litter."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, ClassVar

import pytest

from planes import checksum
from planes.azure import AzurePlane, AzureSettings
from planes.errors import Corrupt, Error, Refused, Throttled
from planes.opening import decorated
from planes.plane import Plane
from planes.settings import PlaneLimits
from tests.doubles import azurite, proxy
from tests.planes import fault_table
from tests.planes.fault_table import Fault

pytestmark = pytest.mark.xdist_group("azure")


class AzureSite:
    """A container of a real service."""

    requests: ClassVar = {
        "stat": {"method": "HEAD"},
        "list": {"method": "GET", "query": "comp=list"},
        "read": {"method": "GET"},
        "put": {"method": "PUT", "header": "x-ms-blob-type"},
        "copy": {"method": "PUT", "header": "x-ms-copy-source"},
        "put_step": {"method": "PUT", "query": "blockid="},
        "copy_step": {"method": "PUT", "header": "x-ms-copy-source"},
        "commit": {"method": "PUT", "query": "comp=blocklist"},
        "abort": {"method": "PUT", "query": "comp=blocklist"},
        "delete": {"method": "DELETE"},
    }
    source = "origin/source"

    def __init__(self, plane: Plane, between: proxy.Proxy, behind: Any) -> None:
        self.plane = plane
        self.between = between
        self._behind = behind

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies there, what an abort leaves for a moment too."""
        names = [each.name for each in self._behind.list_blobs(prefix)]
        return {name: self._behind.download_blob(name).readall() for name in names}

    def open_uploads(self, prefix: str) -> list[str]:
        """Names of blobs at which blocks wait."""
        names = [each.name for each in self._behind.list_blobs(prefix, include=["uncommittedblobs"])]
        return [name for name in names if self._behind.get_blob_client(name).get_block_list("uncommitted")[1]]


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("azure")) as running:
        running.create_container("lake")
        yield running


@pytest.fixture(scope="module")
def behind(account):
    with account.client() as client:
        container = client.get_container_client("lake")
        container.upload_blob(AzureSite.source, fault_table.SOURCE)
        yield container


@pytest.fixture(scope="module")
def between(account):
    with proxy.before(account.url) as running:
        yield running


@pytest.fixture(scope="module")
def undecorated(account, between, tmp_path_factory):
    key = tmp_path_factory.mktemp("keys") / "key"
    key.write_text(account.key)
    url = f"{between.endpoint}/{account.name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planes.azure_account.READ_SECONDS", 1)
        patch.setattr("planes.azure_http.READ_SECONDS", 1)
        settings = {"container": "lake", "account_url": url, "account_key": {"file": key}}
        plane = AzurePlane("cloud", AzureSettings.model_validate(settings))
        yield plane
        asyncio.run(plane.aclose())


@pytest.fixture
def site(undecorated, between, behind):
    """With layers of its own: what went wrong in one case is not remembered in the next."""
    between.clear()
    return AzureSite(decorated(undecorated, PlaneLimits(), fault_table.patience()), between, behind)


def says(status: int, code: str, *, after: str = "", done: bool = False) -> proxy.Fault:
    """An error of Azure's kind, whose code is in a header; with `done` the service has done it before."""

    def fault(exchange: proxy.Exchange) -> None:
        if done:
            exchange.forward()
        headers = (("x-ms-error-code", code), ("Content-Type", "application/xml"))
        text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>by a test</Message></Error>'
        answer = proxy.Answer(status, headers, text.encode())
        exchange.send(answer.with_header("Retry-After", after) if after else answer)

    return fault


def _wrong_checksum(answer: proxy.Answer) -> proxy.Answer:
    return answer.with_header("x-ms-content-crc64", base64.b64encode(checksum.to_azure(5)).decode())


BODIES = frozenset({"list", "read", "stream"})
"""Verbs whose answer has a body that matters."""
VERBS = fault_table.VERBS.keys() - {"begin"}
"""An upload begins without a request."""
FAULTS = {
    "slow-down": Fault(says(503, "ServerBusy", after="7"), always=Throttled),
    "500": Fault(says(500, "InternalError")),
    "500-though-done": Fault(says(500, "OperationTimedOut", done=True)),
    "reset-before": Fault(proxy.refuse),
    "answer-lost": Fault(proxy.drop_answer),
    "truncated": Fault(proxy.truncate(50), verbs=BODIES),
    "reset-in-body": Fault(proxy.reset_after(50), verbs=BODIES),
    "slow-body": Fault(proxy.dribble(8000), always=None, verbs=BODIES),
    "stalled-body": Fault(proxy.stall(50), verbs=BODIES),
    "expired-token": Fault(says(403, "AuthenticationFailed"), once=Refused, always=Refused),
    "flipped-on-its-way": Fault(proxy.flip_sent, always=Corrupt, verbs=frozenset({"put", "put_step"})),
    "wrong-checksum": Fault(proxy.change(_wrong_checksum), always=Corrupt, verbs=frozenset({"put_step", "copy_step"})),
    "delivered-twice": Fault(proxy.twice, always=None),
    "error-in-200": Fault(proxy.error_in_200),
    "lost-then-no-blocks": Fault(
        proxy.drop_answer,
        always=None,
        verbs=frozenset({"commit"}),
        then=((proxy.fail, "HEAD"), (says(400, "InvalidBlockList"), "PUT")),
    ),
    "lost-then-409": Fault(
        proxy.drop_answer,
        always=None,
        verbs=frozenset({"put", "commit"}),
        then=((proxy.fail, "HEAD"), (says(409, "BlobAlreadyExists"), "PUT")),
    ),
    "lost-then-404": Fault(
        proxy.drop_answer,
        always=None,
        verbs=frozenset({"commit"}),
        then=((proxy.fail, "HEAD"), (says(404, "BlobNotFound"), "GET")),
    ),
}
OTHERWISE: dict[tuple[str, str, bool], type[Error] | None] = {
    # Done, though nobody ever says so: seen by looking at the blob.
    **{(verb, name, True): None for verb in ("put", "commit", "abort") for name in ("500-though-done", "answer-lost")},
    # The object that is not there any more needs no deleting.
    ("discard", "500-though-done", True): None,
    ("discard", "answer-lost", True): None,
    # Only the service has seen a copied step. That it lied is found by the commit, which has nobody to ask again.
    ("copy_step", "wrong-checksum", False): Corrupt,
}
"""Cells that differ from their fault's usual outcome."""


CASES = [
    (verb, name, always)
    for name, fault in FAULTS.items()
    for verb in fault_table.VERBS
    for always in (False, True)
    if verb in VERBS and (not fault.verbs or verb in fault.verbs)
]


def test_every_cell_that_differs_is_played():
    assert OTHERWISE.keys() <= set(CASES)


@pytest.mark.parametrize(("verb", "name", "always"), CASES)
async def test_a_fault(site, verb, name, always):
    fault = FAULTS[name]
    came = await fault_table.play(site, verb, name, fault, always=always)
    usual = fault.always if always else fault.once
    wanted = OTHERWISE.get((verb, name, always), usual)
    assert (type(came) if came else None) is wanted, came
