from dataclasses import replace

import pytest

from fileserver.agents.plane import AgentPlane
from planes.plane import KIB, MIB
from planes.posix import LIMITS, PosixPlane, PosixSettings
from tests.fileserver.agents.world import World

SMALL = replace(LIMITS, put_size=MIB, single_put=64 * KIB)
"""Steps that take no time."""


class Small(PosixPlane):
    """A directory whose files come in small steps."""

    @property
    def limits(self):
        return SMALL


@pytest.fixture
async def world(request, store, tmp_path, monkeypatch):
    (tmp_path / "plane").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(AgentPlane, "limits", SMALL)
    plane = Small("data", PosixSettings(path=tmp_path / "plane"))
    async with World(store, plane, tmp_path / "there", works=getattr(request, "param", True)) as made:
        yield made
    await plane.aclose()


@pytest.fixture
def large():
    """Bytes of a file of many steps."""
    return 12 * MIB
