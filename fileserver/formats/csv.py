"""Delimited text: its tokens as plain data, and which ways of splitting they allow.

The meaning of the tokens, which every module here keeps (tests compare them with a slow machine that does nothing
but this): at each position the longest token counts. A quote opens only as the first thing of a field that is not
space or tab; the same quote closes; doubled inside quotes it is data; anywhere else a quote is data. Separators and
terminators inside quotes are data. An escape takes the next token, or the next byte, as data, and is data itself.
A space or tab that begins a token is that token. A UTF-8 byte order mark counts as a space: at offset 0 because it
belongs to no field, and elsewhere because sources that begin with one may have been joined. The end of the source
ends the last record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Final

DEFAULT_MAX_RECORD: Final = 128 * 1024
SPLITS: Final = ("deduce", "exact", "terminator")
BOM: Final = b"\xef\xbb\xbf"
_OPTIONS: Final = {
    "separators": "--separator",
    "terminators": "--terminator",
    "quotes": "--quote",
    "escapes": "--escape",
}
_TYPED: Final = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x5C: "\\\\", 0x2C: "\\,"}


@dataclass(frozen=True, slots=True)
class Csv:
    """Delimited text; each token is a tuple of alternatives, the longest match wins."""

    separators: tuple[bytes, ...] = (b",",)
    terminators: tuple[bytes, ...] = (b"\n", b"\r\n")
    quotes: tuple[bytes, ...] = (b'"',)
    escapes: tuple[bytes, ...] = ()
    max_record: int = DEFAULT_MAX_RECORD
    split: str = "deduce"
    """"deduce", "exact" or "terminator"."""


def escapes(form: Csv) -> tuple[bytes, ...]:
    """The escapes that count: one that is also a quote does not."""
    return tuple(token for token in form.escapes if token not in form.quotes)


def unquoted(form: Csv) -> Csv:
    """The same without quotes: what `split` "terminator" means."""
    return replace(form, quotes=(), escapes=escapes(form))


def problems(form: Csv) -> dict[str, str]:
    """What is wrong with the format itself, by field; empty if nothing is."""
    found: dict[str, str] = {}
    kinds = {
        "separators": form.separators,
        "terminators": form.terminators,
        "quotes": form.quotes,
        "escapes": escapes(form),
    }
    for (first, some), (second, others) in combinations(kinds.items(), 2):
        for token in sorted({*some} & {*others}):
            one, other = _OPTIONS[second], _OPTIONS[first]
            found[second] = f"{one} {shown(token)} is also a {other}; a token can mean one thing only"
    for kind, tokens in kinds.items():
        if b"" in tokens:
            found[kind] = f"{_OPTIONS[kind]}: an empty token matches everywhere"
    if not form.terminators:
        found["terminators"] = "--terminator: without one no record ends; the usual are \\n,\\r\\n"
    if form.max_record < 1:
        found["max_record"] = f"--max-record: {form.max_record} leaves no room for a record; the default is 128KiB"
    if form.split not in SPLITS:
        found["split"] = f"--split {form.split} is not one of {', '.join(SPLITS)}"
    return found


def shown(token: bytes) -> str:
    r"""A token as it is typed after an option: `\n`, `\x00`; a comma alone is itself."""
    text = token.decode(errors="ignore")
    is_plain = text.encode() == token and text.strip() and text.isprintable() and not {*text} & {"\\", ","}
    if is_plain or token == b",":
        return text
    return "".join(_TYPED.get(byte) or (chr(byte) if 0x20 < byte < 0x7F else f"\\x{byte:02x}") for byte in token)


def strategy(form: Csv) -> tuple[str, str]:
    """How split points are found with these tokens, one of `SPLITS`, and a warning if that is not what was asked."""
    if form.split == "exact":
        return "exact", ""
    if form.split == "terminator":
        if synchronous(form):
            return "terminator", ""
        return "exact", "terminators that overlap other tokens, or escapes, need a scan of the whole source"
    if not form.quotes and synchronous(form):
        return "terminator", ""
    if deducible(form):
        return "deduce", ""
    return "exact", (
        "split points are deduced only for one quote of one byte, no escape, and separators and terminators of one "
        "byte or \\n,\\r\\n; with these tokens the sources are scanned from their start"
    )


def deducible(form: Csv) -> bool:
    """Whether the rule of `deduce` is sound for these tokens."""
    pair = {b"\n", b"\r\n"} <= {*form.terminators}
    ends = [token for token in form.terminators if not (pair and token == b"\r\n")]
    return (
        len(form.quotes) == 1
        and not escapes(form)
        and all(len(token) == 1 for token in (*form.separators, *ends, *form.quotes))
        and not (pair and {b"\r", b"\n"} & {*form.separators, *form.quotes})
    )


def synchronous(form: Csv) -> bool:
    """Whether every terminator in the bytes ends a record, wherever one begins to look (quotes apart).

    False if there are escapes, or if a terminator can begin inside another token and end elsewhere than that.
    """
    tokens = (*form.separators, *form.terminators)
    return not escapes(form) and not any(_hides(form, a, b) for a, b in product(tokens, form.terminators))


def _hides(form: Csv, token: bytes, terminator: bytes) -> bool:
    if token in form.separators and token.startswith(terminator):
        return True
    for shift in range(1, len(token)):
        shared = token[shift : shift + len(terminator)]
        same_end = token in form.terminators and shift + len(terminator) == len(token)
        if terminator.startswith(shared) and not (same_end and shared == terminator):
            return True
    return False
