"""Addresses of domains: what is one, and what is said of what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import address

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=40).filter(
    lambda name: name not in {".", "..", ".domain.json"}
)


@given(st.lists(NAMES, min_size=1, max_size=5).filter(lambda names: names[0] != "db"))
def test_every_sound_path_has_one_address_and_back(names):
    path = "/" + "/".join(names)
    assert address.parse(address.show(path)) == path
    assert address.parse(address.show(path) + "/") == path
    assert address.parent(path) == ("/" + "/".join(names[:-1]) if names[:-1] else "/")
    assert address.name(path) == names[-1]


def test_the_top_is_a_folder():
    assert address.parse("hdf5://") == "/"
    assert address.show("/") == "hdf5://"
    assert address.parent("/") == address.parent("/home") == "/"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/home/user/x", r"begins with hdf5://, like hdf5://home/user/name"),
        ("hdf5:/home/x", r"begins with hdf5://"),
        ("hdf5:///home/user/x", r"two slashes after the colon, not three: write hdf5://home/user/x"),
        ("hdf5://home//x", "empty name"),
        ("hdf5://home/../etc", r"'\.\.', which would lead elsewhere"),
        ("hdf5://home/./x", "lead elsewhere"),
        ("hdf5://home/x/.domain.json", "the server's own"),
        ("hdf5://db/x", "stores objects"),
        ("hdf5://home/a\nb", "no name may have"),
        ("hdf5://home/\udcff", "no name may have"),
        ("hdf5://home/" + "x" * 256, "more than 255 bytes"),
    ],
)
def test_what_is_none_is_told_with_the_way_out(text, said):
    with pytest.raises(InvalidSpec, match=said) as refused:
        address.parse(text, "target")
    assert list(refused.value.violations) == ["target"]


def test_a_new_name_is_one_that_the_server_lists():
    assert address.parse("hdf5://home/a\\b") == "/home/a\\b"  # there may be one
    with pytest.raises(InvalidSpec, match="backslash"):
        address.parse_new("hdf5://home/a\\b")
    assert address.parse_new("hdf5://home/ab") == "/home/ab"


def test_below():
    assert address.lies_below("/a/b", "/a")
    assert address.lies_below("/a", "/a")
    assert address.lies_below("/a", "/")
    assert not address.lies_below("/ab", "/a")
