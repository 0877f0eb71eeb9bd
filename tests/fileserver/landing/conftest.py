import pytest

from tests.fileserver.landing.zone import Zone


@pytest.fixture
async def zone(store):
    made = Zone(store)
    yield made
    for each in made.made:
        await each.rest()
