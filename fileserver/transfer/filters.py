"""Which keys a sync is about: globs that include and exclude. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

_TOKEN: Final = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)


def wanted(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A test for keys: one of `include` matches (or there is none), and none of `exclude` does."""
    some, none = _any(include), _any(exclude)

    def test(key: str) -> bool:
        return (some is None or some.match(key) is not None) and (none is None or none.match(key) is None)

    return test


def pattern(glob: str) -> str:
    """The regular expression of a glob, for the whole of a relative key.

    Without a `/` it is for the last element, at any depth; with one for the whole key (a leading `/` says only that),
    and one that ends in `/` is for everything below. `*` and `?` stop at `/`, `**` does not, `**/` is also nothing;
    `[a-z]` and `[!a-z]` are one character.
    """
    anchored = "/" in glob
    text = "".join(map(_translated, _TOKEN.findall(glob.removeprefix("/"))))
    if glob.endswith("/"):
        text += ".*"
    return rf"(?s:{text})\Z" if anchored else rf"(?s:(?:.*/)?{text})\Z"


def _translated(token: str) -> str:
    match token:
        case "**/":
            return "(?:.*/)?"
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
    if len(token) > 2 and token[0] == "[":
        inner = token[1:-1]
        negated = inner.startswith("!") and len(inner) > 1
        letters = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[negated:])
        return f"(?!/)[{'^' if negated else ''}{letters}]"
    return re.escape(token)


def problem(glob: str) -> str:
    """What is wrong with a glob; empty if nothing is."""
    if not glob.strip("/"):
        return f"'{glob}' matches nothing: name something, like '*.csv' or 'old/**'"
    if "[" in _TOKEN.findall(glob):
        return f"'{glob}' has a [ that no ] ends; [[] is that character itself"
    try:
        re.compile(pattern(glob))
    except re.error as error:
        return f"'{glob}' is not a glob: {error.msg}"
    return ""


def _any(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(pattern, globs))) if globs else None
