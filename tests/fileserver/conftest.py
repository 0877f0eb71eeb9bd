import pytest

from fileserver.catalogue.store import Store
from fileserver.catalogue.writes import metadata
from planes.memory import MemoryPlane, MemorySettings
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.serving import Files, Serving


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path)
    metadata.create_all(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def files():
    return Files()


@pytest.fixture(params=["memory", "posix"])
async def plane(request, tmp_path):
    if request.param == "memory":
        opened = MemoryPlane("data", MemorySettings())
    else:
        (tmp_path / "plane").mkdir()
        opened = PosixPlane("data", PosixSettings(path=tmp_path / "plane", durability="os"))
    yield opened
    await opened.aclose()


@pytest.fixture
async def serving(plane, files, store):
    async with Serving(plane, files, store) as opened:
        yield opened
