"""What the words of a command mean: objects, formats, counts. Collects everything that is wrong before it says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from client import words
from client.errors import Code, Reason, ServerError, bad_request, invalid
from client.session import Session
from client.words import Csv, Format, Kind, Location, WordError

_Value = TypeVar("_Value")


class Problems:
    """What is wrong with a command, by argument or option."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def say(self, field: str, sentence: str) -> None:
        """Note a problem; a second one of the same field is put behind the first."""
        self._found[field] = f"{self._found[field]}; {sentence}" if field in self._found else sentence

    def parse(self, field: str, parse: Callable[[str], _Value], text: str | None, otherwise: _Value) -> _Value:
        """The value of a word, or `otherwise` where it is not given or wrong."""
        if text is None:
            return otherwise
        try:
            return parse(text)
        except WordError as error:
            self.say(field, str(error))
            return otherwise

    def check(self) -> None:
        """Raise ServerError INVALID_SPEC with all problems, if there are any."""
        if self._found:
            raise bad_request(self._found)


@dataclass(frozen=True, slots=True)
class FormatWords:
    """The format options of a command as they were typed; None where not given."""

    name: str | None
    separator: str | None = None
    quote: str | None = None
    terminator: str | None = None
    escape: str | None = None
    max_record: str | None = None
    split: str | None = None

    def given(self) -> list[str]:
        """The options that only csv has a use for and that were given."""
        named = {
            "--separator": self.separator,
            "--quote": self.quote,
            "--terminator": self.terminator,
            "--escape": self.escape,
            "--max-record": self.max_record,
            "--split": self.split,
        }
        return [option for option, text in named.items() if text is not None]


def read_format(typed: FormatWords, names: Sequence[str], problems: Problems) -> Format | None:
    """The format that was typed, else the one that all names end in; None, without a problem, where neither says.

    Args:
        typed: the options.
        names: keys of the sources; their endings decide where no format is named.
        problems: gets what is wrong.
    """
    named = problems.parse("--format", words.parse_format, typed.name, None)
    chosen = named if typed.name is not None else words.format_of_names(names)
    extra = typed.given()
    if isinstance(chosen, Csv):
        return _read_csv(chosen, typed, problems)
    for option in extra if typed.name is None or chosen is not None else ():
        problems.say(option, f"it is for csv: name the format with --format csv, or leave {option} out")
    return chosen


def _read_csv(chosen: Csv, typed: FormatWords, problems: Problems) -> Csv:
    separators = problems.parse("--separator", words.parse_tokens, typed.separator, chosen.separators)
    terminators = problems.parse("--terminator", words.parse_tokens, typed.terminator, chosen.terminators)
    quotes = problems.parse("--quote", words.parse_tokens, typed.quote, chosen.quotes)
    if typed.separator == "":
        problems.say("--separator", "it is empty: name at least one separator, like ','")
    if typed.terminator == "":
        problems.say("--terminator", "it is empty: name at least one terminator, like '\\n'")
    if typed.split is not None and typed.split not in {"deduce", "exact", "terminator"}:
        problems.say("--split", f"'{typed.split}' is not a way to split: there are deduce, exact and terminator")
    return replace(
        chosen,
        separators=separators,
        terminators=terminators,
        quotes=None if typed.quote == "" else quotes,
        escapes=problems.parse("--escape", words.parse_tokens, typed.escape, ()),
        max_record=problems.parse("--max-record", words.parse_size, typed.max_record, 0),
        split=typed.split or "",
    )


def read_parts(parts: str | None, part_size: str | None, problems: Problems) -> tuple[int, int]:
    """Number of parts and bytes a part; 0 where not given, and at most one of them is."""
    if parts is not None and part_size is not None:
        problems.say("--part-size", "--parts is given, too: leave one of them out")
    return (
        problems.parse("--parts", words.parse_count, parts, 0),
        problems.parse("--part-size", words.parse_size, part_size, 0),
    )


def read_verify(verify: str | None, problems: Problems) -> bool:
    """Whether `--verify read` was given; there is no other way yet."""
    if verify not in {None, "read"}:
        problems.say("--verify", f"'{verify}' is not a way to verify: there is read")
    return verify == "read"


def read_priority(priority: str | None, problems: Problems) -> int:
    """A number from 1 (goes first) to 9; 0 if none was given."""
    if priority is not None and priority not in set("123456789"):
        problems.say("--priority", f"'{priority}' is not a number from 1 (goes first) to 9")
        return 0
    return int(priority or 0)


def read_natural(order: str | None, problems: Problems) -> bool:
    """Whether numbers in names count as numbers."""
    if order not in {None, "bytes", "natural"}:
        problems.say("--order", f"'{order}' is not an order: there are bytes and natural")
    return order == "natural"


def check_names(problems: Problems, **named: str) -> None:
    """Names of logical files must at least be text; the server says what else is wrong with them."""
    for field, name in named.items():
        problems.parse(field.upper(), words.check_text, name, None)


def check_places(field: str, typed: Iterable[str], problems: Problems, instead: str) -> None:
    """What is wrong with places, as far as it can be told before the server is asked for its planes.

    Args:
        field: the argument that they are.
        typed: the words.
        problems: gets what is wrong.
        instead: what to do instead of naming an open file of this process, like "write - for standard input".
    """
    for word in typed:
        if words.is_descriptor(word):
            problems.say(field, f"'{word}' is an open file of one process, which the server does not share: {instead}")
        problems.parse(field, words.check_text, word, None)
        if words.kind_of(word) is Kind.LOGICAL:
            problems.say(
                field, f"'{word}' is the name of a logical file, not of an object (a path of that name: ./{word})"
            )
        if word.startswith("hdf5://"):
            problems.say(field, f"'{word}' is a domain of HSDS, not a file: `cropduster hdf5 get` makes a file of it")
        if not word:
            problems.say(field, "it is empty")


class Places:
    """Finds out where the objects are that words name.

    Args:
        planes: asks the server for the names of its planes; only called for a word that may name one.
    """

    def __init__(self, planes: Callable[[], Sequence[str]]) -> None:
        self._ask = planes
        self._planes: Sequence[str] | None = None

    def find(self, word: str) -> Location:
        """The object that a word names, which `check_places` has let through.

        Raises:
            ServerError: PLANE_NOT_FOUND, the word looks like plane:key, but there is no such plane and no such path.
        """
        if words.kind_of(word) is Kind.MAYBE_PLANE:
            if self._planes is None:
                self._planes = self._ask()
            place = words.split_plane(word)
            if place.plane in self._planes:
                return place
            if not _is_path(word):
                raise _no_plane(place.plane, word, self._planes)
        path = os.path.abspath(word)  # noqa: PTH100  # symlinks are the server's to follow
        try:
            words.check_text(path)
        except WordError as error:
            raise invalid(str(error)) from None
        return Location(words.LOCAL, path)


def find_all(session: Session, typed: Sequence[str]) -> list[Location]:
    """The objects that words name; asks the server for its planes at most once, and only if a word may name one."""
    places = Places(lambda: [plane.name for plane in session.client.list_planes().planes])
    return [places.find(word) for word in typed]


def _is_path(word: str) -> bool:
    """Whether a word with a colon is a path all the same: it exists, or the folder before its last element does."""
    folder = os.path.dirname(word)  # noqa: PTH120  # `Path` has "." for no folder
    return os.path.lexists(word) or bool(folder and Path(folder).is_dir())


def _no_plane(name: str, word: str, planes: Sequence[str]) -> ServerError:
    known = ", ".join(planes) or "none"
    msg = f"no plane is called '{name}' (there are: {known}); for a path of this machine write ./{word}"
    return ServerError(Reason.PLANE_NOT_FOUND, Code.NOT_FOUND, msg, {"plane": name})
