"""Whatever goes wrong between us and Azure: the verb completes or says one clear error, and leaves no litter."""

from __future__ import annotations

import asyncio

import pytest

from planes.azure import AzurePlane, AzureSettings
from planes.errors import Corrupt, Error, Refused, Throttled
from planes.opening import decorated
from planes.settings import PlaneLimits
from tests.doubles import azurite, proxy
from tests.planes import fault_table
from tests.planes.azure_site import AzureSite, says, wrong_checksum
from tests.planes.fault_table import Fault


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
    "wrong-checksum": Fault(proxy.change(wrong_checksum), always=Corrupt, verbs=frozenset({"put_step", "copy_step"})),
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
