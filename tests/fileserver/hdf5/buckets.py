"""Buckets in memory for loads: one whose writer dies, and what is in one."""

import pytest

from planes.errors import Unavailable
from planes.memory import MemoryPlane, MemorySettings
from planes.plane import Extent


class Dying(MemoryPlane):
    """A bucket whose writer dies at the n-th object."""

    left = 1 << 30

    async def put(self, key, data, **options):
        if not self.left:
            msg = "the writer has died"
            raise Unavailable(msg)
        self.left -= 1
        return await super().put(key, data, **options)


@pytest.fixture
async def plane():
    """Where the files to be loaded are."""
    made = MemoryPlane("data", MemorySettings())
    yield made
    await made.aclose()


async def content(bucket, prefix=""):
    found = {}
    async for info in bucket.list(prefix):
        data = bytearray(info.size)
        await bucket.read(Extent(info.key, info.version, 0, info.size), memoryview(data))
        found[info.key] = bytes(data)
    return found
