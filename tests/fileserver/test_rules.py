"""Rules: what a name in a rule stands for, and what it does not."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fileserver.callers import RuleSettings
from fileserver.rules import Rules, Thing, Verb, domain_pattern, file_pattern, plane_pattern

PLANES = [
    # pattern, covered, not covered
    ("lz", ["lz:", "lz:x", "lz:a/../b"], ["lz2:x", "l:z", "other:lz:x"]),
    ("lz:", ["lz:x"], ["lz2:x"]),
    ("lz:*", ["lz:x"], ["lz2:x"]),
    ("lz:in/", ["lz:in/", "lz:in/x", "lz:in/a/b"], ["lz:in", "lz:inx", "lz:", "lz:i", "lz:IN/x", "lz2:in/x"]),
    ("lz:in", ["lz:in", "lz:in/x"], ["lz:inx", "lz:in2/x"]),
    ("lz:in/2024-*", ["lz:in/2024-1", "lz:in/2024-x/y"], ["lz:in/2023", "lz:in/", "lz:in/2024"]),
    ("*", ["lz:x", "any:"], []),
    ("lz:in/", [], ["lz:in/../out", "lz:in/a/..", "lz:in/./x", "lz:./in/x", "lz:../lz/in/x"]),
    ("lz:in/", [], ["lz:\u0131n/x", "lz:in\u2044x", "lz:i\u200bn/x", "lz:in%2fx", "lz:in\\x", "lz:\uff49n/x"]),
]


@pytest.mark.parametrize(("pattern", "covered", "other"), PLANES)
def test_a_place_stands_for_itself_and_what_is_below_it(pattern, covered, other):
    made = plane_pattern(pattern)
    assert [name for name in covered if not made.covers(Thing("planes", name))] == []
    assert [name for name in other if made.covers(Thing("planes", name))] == []


@pytest.mark.parametrize(
    ("pattern", "covered", "other"),
    [
        ("sales::*", ["sales::x", "sales::y::z"], ["sales", "sales2::x", "x::sales::y"]),
        ("sales", ["sales", "sales::x"], ["sales2", "sales2::x"]),
        ("Sales::X ", ["sales::x", "sales::x::y"], ["sales::xy"]),
        ("sales::x*", ["sales::x", "sales::xy"], ["sales::y"]),
        ("*", ["a", "a::b"], []),
    ],
)
def test_a_scope_stands_for_what_is_in_it(pattern, covered, other):
    made = file_pattern(pattern)
    assert [name for name in covered if not made.covers(Thing("files", name))] == []
    assert [name for name in other if made.covers(Thing("files", name))] == []


@pytest.mark.parametrize("pattern", ["hdf5://home/alice/", "hdf5://home/alice"])
def test_a_folder_of_hsds_stands_for_what_is_in_it(pattern):
    made = domain_pattern(pattern)
    assert made.covers(Thing("domains", "hdf5://home/alice/x"))
    assert made.covers(Thing("domains", "hdf5://home/alice/", below=True))
    assert not made.covers(Thing("domains", "hdf5://home/alice2/x"))
    assert not made.covers(Thing("domains", "hdf5://home/", below=True))
    assert not made.covers(Thing("planes", "hdf5://home/alice/x"))


@pytest.mark.parametrize(
    ("pattern", "open_ended", "covered"),
    [
        ("lz:in/", "lz:in/", True),
        ("lz:in/", "lz:in/a", True),
        ("lz:in/", "lz:in", False),  # in* is also in2
        ("lz:in/", "lz:i", False),
        ("lz:in/", "lz:", False),
        ("lz", "lz:", True),
        ("lz:in*", "lz:in", True),
        ("lz:in*", "lz:i", False),
    ],
)
def test_a_wildcard_stays_inside_the_prefix(pattern, open_ended, covered):
    assert plane_pattern(pattern).covers(Thing("planes", open_ended, below=True)) is covered


KEYS = st.text("ab/.*", max_size=6)


@given(folder=KEYS, key=KEYS, below=st.booleans())
def test_nothing_is_covered_that_does_not_begin_with_the_folder(folder, key, below):
    try:
        pattern = plane_pattern(f"lz:{folder}")
    except ValueError:
        return
    if pattern.covers(Thing("planes", f"lz:{key}", below)):
        assert key.startswith(folder.removesuffix("*"))
        assert ".." not in key.split("/") or folder in {"", "*"}


@pytest.mark.parametrize("text", ["", "**", "a*b", ":x", "*:x", "lz:a*/b", "lz:?", "lz:a/../b", "l*"])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(ValueError, match=r"no place|no name"):
        plane_pattern(text)


@pytest.mark.parametrize("text", ["home", "hdf5://", "hdf5://a/../b", ""])
def test_what_is_no_folder_is_refused(text):
    with pytest.raises(ValueError, match=r"no folder|no name"):
        domain_pattern(text)


def rules(*settings):
    return Rules([RuleSettings.model_validate(each).rule() for each in settings])


def test_a_rule_is_about_callers_by_name_and_by_group():
    made = rules({"who": ["alice", "group:ops"], "may": ["read"], "planes": ["lz"]})
    thing = Thing("planes", "lz:x")
    assert made.of("alice", []).allow(Verb.READ, thing)
    assert made.of("bob", ["x", "ops"]).allow(Verb.READ, thing)
    assert not made.of("bob", ["alice"]).allow(Verb.READ, thing)
    assert not made.of("ops", []).allow(Verb.READ, thing)
    assert not made.of("group:ops", []).allow(Verb.READ, thing)  # somebody who calls himself like a group
    assert not made.of("Alice", []).allow(Verb.READ, thing)
    assert rules({"who": ["*"], "may": ["read"], "planes": ["lz"]}).of("x", []).allow(Verb.READ, thing)


def test_only_what_a_rule_has_is_allowed_and_rules_add_up():
    made = rules(
        {"who": ["a"], "may": ["read"], "planes": ["lz:in/"], "files": ["x::*"]},
        {"who": ["a"], "may": ["write", "delete"], "planes": ["lz:out/"]},
    ).of("a", [])
    told = {
        (verb, name): made.allow(verb, Thing("planes", name))
        for verb in Verb
        for name in ("lz:in/k", "lz:out/k", "lz:k")
    }
    assert {key for key, allowed in told.items() if allowed} == {
        (Verb.READ, "lz:in/k"),
        (Verb.WRITE, "lz:out/k"),
        (Verb.DELETE, "lz:out/k"),
    }
    assert not made.allow(Verb.WRITE, Thing("files", "x::y"))
    assert not made.admin
    assert made.sees_plane("lz")
    assert not made.sees_plane("l")
    assert rules({"who": ["a"], "may": ["admin"]}).of("a", []).admin


@pytest.mark.parametrize(
    "wrong",
    [
        {"who": [], "may": ["read"], "planes": ["x"]},
        {"who": ["a"], "may": [], "planes": ["x"]},
        {"who": ["a"], "may": ["read"]},
        {"who": ["a"], "may": ["fly"], "planes": ["x"]},
        {"who": ["group:"], "may": ["read"], "planes": ["x"]},
        {"who": ["a"], "may": ["read"], "files": ["a::::b"]},
    ],
)
def test_a_rule_that_says_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        RuleSettings.model_validate(wrong)
