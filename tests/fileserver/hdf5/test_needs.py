import sys

import pytest

from fileserver.hdf5 import needs
from planes.errors import Refused


@pytest.mark.parametrize(
    ("need", "package"), [(needs.need_library, "h5py"), (needs.need_library, "hdf5plugin"), (needs.need_all, "aiohttp")]
)
def test_a_package_that_is_not_installed_is_named_with_the_way_out(need, package, monkeypatch):
    need()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Refused, match=rf"{package}: pip install 'cropduster\[hdf5\]'") as refused:
        need()
    assert refused.value.facts == {"package": package, "extra": "hdf5"}
