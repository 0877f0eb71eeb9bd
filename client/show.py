"""What a person or a program sees of an answer: tables, a progress bar, or JSON, and errors on stderr.

Everything that came from elsewhere (names, keys, messages) is cleaned of what a terminal would obey.
"""

# ruff: noqa: T201  # this is the module that prints
from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from client import phrases, shapes
from client.errors import ServerError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from fileserver.v1.transfer_pb2 import Transfer

_Item = TypeVar("_Item")
_BATCH: Final = 1000
"""Rows of a listing whose columns are aligned together; more are not held in memory."""

_UNBOUND: Final = 100_000  # columns, where no terminal wraps lines


class Show:
    """Where results and notes go: stdout for results, stderr for everything else.

    Args:
        as_json: results as JSON instead of tables; no notes and no bar then.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._noted = ""

    def object(self, shape: shapes.JSON) -> None:
        """One result as one line of JSON."""
        print(json.dumps(shape), flush=True)

    def line(self, text: str) -> None:
        """One result for people."""
        print(phrases.clean(text), flush=True)

    def note(self, text: str) -> None:
        """Something that a person should know; the same twice in a row is said once."""
        if not self.as_json and text != self._noted:
            self._noted = text
            _say(phrases.clean(text))

    def error(self, error: ServerError) -> None:
        """A failure: one JSON object, or the message with every wrong field below it."""
        if self.as_json:
            _say(json.dumps(shapes.failure(error)))
            return
        lines = [f"error: {error.message}"]
        for field, text in error.violations.items():
            if error.message not in {text, f"{field}: {text}"}:
                lines.append(f"  {field}: {text}")
        _say(phrases.clean("\n".join(lines)))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line."""
        self.table(("", ""), pairs)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows below headers, aligned; no headers if they are empty. A header that begins with `>` is for numbers."""
        remaining = iter(rows)
        right = [header.startswith(">") for header in headers]
        title = [header.removeprefix(">") for header in headers] if any(headers) else []
        width = _width()
        while (batch := list(islice(remaining, _BATCH))) or title:
            cells = [[phrases.clean(cell).replace("\n", "\\n") for cell in row] for row in batch]
            print("\n".join(_aligned(title, cells, right, width) or _folded(title, cells, right)))
            title = []
        sys.stdout.flush()

    def listing(
        self,
        key: str,
        items: Iterable[_Item],
        shape: Callable[[_Item], shapes.JSON],
        headers: Sequence[str],
        cells: Callable[[_Item], Sequence[str]],
        head: Mapping[str, shapes.JSON] | None = None,
        tail: Callable[[], Mapping[str, shapes.JSON]] = dict,
    ) -> None:
        """Many results: one JSON object with a list under `key`, or a table; neither holds all of them at once.

        `head` is what the JSON object has before the list, `tail` gives at the end what it has behind it.
        """
        if not self.as_json:
            self.table(headers, map(cells, items))
            return
        # The first item comes before the first byte: a call that fails at once leaves stdout empty.
        rest = iter(items)
        begun = [json.dumps(shape(item)) for item in islice(rest, 1)]
        before = "".join(f"{json.dumps(name)}: {json.dumps(value)}, " for name, value in (head or {}).items())
        print(f"{{{before}{json.dumps(key)}: [{''.join(begun)}", end="")
        for item in rest:
            print(f", {json.dumps(shape(item))}", end="")
        behind = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in tail().items())
        print(f"]{behind}}}", flush=True)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Transfer], None]]:
        """A function that shows how far a transfer is: a bar on a terminal, else nothing."""
        if self.as_json or not sys.stderr.isatty():
            yield _ignore
            return
        bar = _Bar()
        with bar.display:
            yield bar.update


class _Bar:
    """State, bar, bytes, rate and time left of one transfer; rate and time as the server measures them."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  # only on a terminal
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        self.display: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[far]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID = self.display.add_task("waiting", total=None, far="")

    def update(self, transfer: Transfer) -> None:
        progress = transfer.progress
        far = ""
        if progress.bytes_total:
            far = f"{phrases.size(progress.bytes_done)} of {phrases.size(progress.bytes_total)}"
        if progress.rate > 0:
            far += f", {phrases.rate(progress.rate)}"
        if progress.eta > 0:
            far += f", {phrases.seconds(progress.eta)} left"
        self.display.update(
            self._task,
            description=phrases.state(transfer.state).lower(),
            total=progress.bytes_total or None,
            completed=progress.bytes_done,
            far=far,
        )


def _say(text: str) -> None:
    """Print to stderr; where nobody reads that, the exit code alone tells."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def _ignore(_: Transfer) -> None:
    """Nobody looks at a bar."""


def _width() -> int:
    """Columns of the terminal; without one nothing wraps lines."""
    return _console().width if sys.stdout.isatty() else _UNBOUND


def _aligned(title: list[str], rows: list[list[str]], right: list[bool], width: int) -> list[str]:
    """Lines of aligned columns, a title first if there is one; none if they are wider than `width`."""
    from rich.cells import cell_len  # noqa: PLC0415  # only commands that print tables pay for it

    table = [title, *rows] if title else rows
    sizes = [[cell_len(cell) for cell in row] for row in table]
    columns = [max(column) for column in zip(*sizes, strict=True)]
    if sum(columns) + 2 * (len(columns) - 1) > width:
        return []
    lines = []
    for row, size in zip(table, sizes, strict=True):
        room = [" " * (most - own) for most, own in zip(columns, size, strict=True)]
        cells = (space + cell if end else cell + space for cell, space, end in zip(row, room, right, strict=True))
        lines.append("  ".join(cells).rstrip())
    if title and sys.stdout.isatty():
        lines[0] = _bold(lines[0])
    return lines


def _bold(line: str) -> str:
    from rich.text import Text  # noqa: PLC0415  # as above

    console = _console()
    with console.capture() as drawn:
        console.print(Text(line, style="bold"), end="")
    return drawn.get()


def _folded(title: list[str], rows: list[list[str]], right: list[bool]) -> list[str]:
    """The same where a terminal is too narrow: long cells go on in the next line. Slow for many rows."""
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, show_header=bool(title), header_style="bold")
    for header, end in zip(title or [""] * len(right), right, strict=True):
        table.add_column(header, justify="right" if end else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = _console()
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415  # only commands that print tables pay for it

    return Console() if sys.stdout.isatty() else Console(width=_UNBOUND)
