"""Globs of a sync against a slow matcher that follows the rules letter by letter."""

import re
from functools import cache

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fileserver.transfer.filters import pattern, problem, wanted

LETTERS = st.sampled_from("ab/.")
KEYS = st.text(LETTERS, min_size=1, max_size=8)
GLOBS = st.lists(st.sampled_from(["a", "b", "/", ".", "*", "**", "**/", "?"]), min_size=1, max_size=6).map("".join)


def matches(glob, key):
    """The rules, without regular expressions."""
    whole = "/" in glob
    glob = glob.removeprefix("/") + ("**" if glob.endswith("/") else "")

    @cache
    def at(g, k):
        if g == len(glob):
            return k == len(key)
        if glob.startswith("**/", g):
            return at(g + 3, k) or any(key[n - 1] == "/" and at(g + 3, n) for n in range(k + 1, len(key) + 1))
        if glob.startswith("**", g):
            return any(at(g + 2, n) for n in range(k, len(key) + 1))
        if glob[g] == "*":
            return at(g + 1, k) or (k < len(key) and key[k] != "/" and at(g, k + 1))
        return k < len(key) and (key[k] == glob[g] or (glob[g] == "?" and key[k] != "/")) and at(g + 1, k + 1)

    starts = [0] if whole else [0, *(n + 1 for n, letter in enumerate(key) if letter == "/")]
    return any(at(0, start) for start in starts)


@given(GLOBS, KEYS)
def test_a_glob_matches_what_the_rules_say(glob, key):
    assert bool(re.match(pattern(glob), key)) == matches(glob, key)


@given(st.lists(GLOBS, max_size=3), st.lists(GLOBS, max_size=3), KEYS)
def test_a_key_is_wanted_if_it_is_included_and_not_excluded(include, exclude, key):
    included = not include or any(matches(glob, key) for glob in include)
    assert wanted(include, exclude)(key) == (included and not any(matches(glob, key) for glob in exclude))


@pytest.mark.parametrize(
    ("glob", "key", "expected"),
    [
        ("*.csv", "a/b.csv", True),
        ("/*.csv", "a/b.csv", False),
        ("a/*.csv", "a/b.csv", True),
        ("a/*.csv", "x/a/b.csv", False),
        ("**/a/*.csv", "x/a/b.csv", True),
        ("old/", "old/x/y", True),
        ("old/", "very/old/x", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[!a-c]x", "dx", True),
        ("a[", "a[", True),
        ("a]b", "a]b", True),
        ("x[]]", "x]", True),
        ("a.b", "axb", False),
        ("line\nfeed", "line\nfeed", True),
        ("*", "a\nb", True),
        ("ü?", "üß", True),
    ],
)
def test_examples(glob, key, expected):
    assert wanted([glob], [])(key) == expected


def test_what_is_no_glob_is_named():
    assert problem("") == "'' matches nothing: name something, like '*.csv' or 'old/**'"
    assert "matches nothing" in problem("/")
    assert "has a [ that no ] ends" in problem("[")
    assert "has a [ that no ] ends" in problem("a/[b")
    assert problem("x[[]") == ""
    assert "not a glob" in problem("[z-a]")
    assert problem("[a-z]*/**") == ""
