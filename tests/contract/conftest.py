"""The table of planes that the contract is run against: a new plane is one row more.

`REQUIRE_PLANES=memory,posix,s3,azure` makes a plane that is not available here an error instead of a skip.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from planes.faulty import FaultyPlane
from planes.limited import LimitedPlane
from planes.memory import MemoryPlane, Store
from planes.metered import MeteredPlane
from planes.plane import Plane
from planes.posix import PosixPlane, PosixSettings
from planes.retrying import RetryingPlane
from planes.settings import PlaneLimits, Secret


class NotAvailable(Exception):
    """A plane cannot be tried on this machine; the text says why."""


@dataclass(frozen=True)
class Place:
    """Somewhere objects live: each `open` is another plane over the same objects, as in another process."""

    open: Callable[[], Plane]


def _posix(folder: Path) -> Place:
    root = folder / "root"
    root.mkdir()
    return Place(lambda: PosixPlane("posix", PosixSettings(path=root, durability="os")))


def _memory(folder: Path) -> Place:
    store = Store()
    return Place(lambda: MemoryPlane("memory", store=store))


def _around(decorate: Callable[[Plane], Plane]) -> Callable[[Path], Place]:
    def made(folder: Path) -> Place:
        inner = _posix(folder)
        return Place(lambda: decorate(inner.open()))

    return made


ROWS: dict[str, Callable[[Path], Place]] = {
    "memory": _memory,
    "posix": _posix,
    "retrying": _around(RetryingPlane),
    "limited": _around(lambda plane: LimitedPlane(plane, PlaneLimits(requests=2, bytes_per_second=1 << 40))),
    "metered": _around(MeteredPlane),
    "faulty": _around(FaultyPlane),
}
STORES = ("s3", "s3_small", "azure")
_FOLDERS = "SeaweedFS 4.48 lists folder by folder, so 'a/b' comes before 'a-b', and after 'a' not at all"
GAPS = {("test_folders_are_listed_by_the_bytes_of_whole_keys", name): _FOLDERS for name in ("s3", "s3_small")}
"""What a double cannot do: strict, so that we hear when it learns it."""
REQUIRED = frozenset(filter(None, os.environ.get("REQUIRE_PLANES", "").split(",")))


def pytest_configure() -> None:
    unknown = REQUIRED - {*ROWS, *STORES}
    if unknown:
        message = f"REQUIRE_PLANES names planes that are not in the table: {', '.join(sorted(unknown))}"
        raise pytest.UsageError(message)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        row = getattr(item, "callspec", None) and item.callspec.params.get("place")
        reason = GAPS.get((getattr(item, "originalname", ""), row))
        if reason:
            item.add_marker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))


@pytest.fixture(scope="session")
def s3_made(tmp_path_factory) -> Iterator[Callable[[int], Place]]:
    """A fresh prefix of one bucket for each test, on a store that runs as long as the session."""
    try:
        from planes.s3 import S3Plane, S3Settings
        from tests.doubles import seaweedfs

        seaweedfs.program("weed")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise NotAvailable(str(error)) from error
    with seaweedfs.running(tmp_path_factory.mktemp("store")) as store, pytest.MonkeyPatch.context() as environment:
        store.create_bucket("contract")
        environment.setenv("CONTRACT_ACCESS_KEY", store.access_key)
        environment.setenv("CONTRACT_SECRET_KEY", store.secret_key)

        def made(soon: int) -> Place:
            settings = S3Settings(
                bucket="contract",
                prefix=uuid.uuid4().hex,
                endpoint=store.endpoint,
                access_key=Secret(env="CONTRACT_ACCESS_KEY"),
                secret_key=Secret(env="CONTRACT_SECRET_KEY"),
            )
            return Place(lambda: S3Plane("s3", settings, soon=soon))

        yield made


@pytest.fixture(scope="session")
def s3_row(s3_made) -> Callable[[Path], Place]:
    """Every request by the SDK."""
    return lambda _folder: s3_made(1 << 30)


@pytest.fixture(scope="session")
def s3_small_row(s3_made) -> Callable[[Path], Place]:
    """Small objects by the second client, from the first request on that it may make."""
    return lambda _folder: s3_made(0)


@pytest.fixture(scope="session")
def azure_row(tmp_path_factory) -> Iterator[Callable[[Path], Place]]:
    """A fresh prefix of one container for each test, on a service that runs as long as the session."""
    try:
        from planes.azure import AzurePlane, AzureSettings
        from tests.doubles import azurite

        azurite.installed()
    except (ModuleNotFoundError, FileNotFoundError, RuntimeError) as error:
        raise NotAvailable(str(error)) from error
    with azurite.running(tmp_path_factory.mktemp("account")) as account, pytest.MonkeyPatch.context() as environment:
        account.create_container("contract")
        environment.setenv("CONTRACT_CONNECTION_STRING", account.connection_string)

        def made(folder: Path) -> Place:
            settings = AzureSettings(
                container="contract",
                prefix=uuid.uuid4().hex,
                connection_string=Secret(env="CONTRACT_CONNECTION_STRING"),
            )
            return Place(lambda: AzurePlane("azure", settings))

        yield made


def _row(name: str, request: pytest.FixtureRequest) -> Callable[[Path], Place]:
    if name in ROWS:
        return ROWS[name]
    try:
        return request.getfixturevalue(f"{name}_row")
    except NotAvailable as reason:
        if name in REQUIRED:
            message = f"plane {name} is required (REQUIRE_PLANES) but not available: {reason}"
            raise AssertionError(message) from reason
        pytest.skip(f"plane {name} is not available: {reason}")


@pytest.fixture(params=[*ROWS, *STORES])
def place(request, tmp_path) -> Place:
    return _row(request.param, request)(tmp_path)


@pytest.fixture
async def plane(place) -> AsyncIterator[Plane]:
    opened = place.open()
    yield opened
    await opened.aclose()


@pytest.fixture
async def elsewhere(place) -> AsyncIterator[Plane]:
    """The same objects as another process sees them."""
    opened = place.open()
    yield opened
    await opened.aclose()


@pytest.fixture(autouse=True)
async def nothing_left_behind(request, tmp_path) -> AsyncIterator[None]:
    """On a file system every temporary file must be gone after each test, whatever the test did."""
    yield
    left = [p for p in tmp_path.rglob("*") if re.match(r"\.cropduster-", p.name)]
    assert not left, f"temporary files stayed: {left}"
