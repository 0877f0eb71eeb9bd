"""bench hsds create, write, status: the write test of an HSDS server, or of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from client.commands import options
from client.errors import Exit
from client.places import Problems
from client.session import Session, command
from client.words import WordError, parse_count

if TYPE_CHECKING:
    from client.bench import Block, Difference, Figures, Status
    from client.shapes import JSON

HELP: Final = (
    "Write test: many writers fill one dataset, each block once; anybody checks it, and sees who was how fast."
)

_SCHEME: Final = "hdf5://"
_MOST_WRITERS: Final = 256  # processes on one machine
_CUTS: Final = ("block", "row", "column")

_WHERE = Annotated[
    str,
    typer.Argument(
        metavar="hdf5://FOLDER/NAME|FILE", help="A domain of HSDS, or an HDF5 file here.", show_default=False
    ),
]
_VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Show every block with its time.")]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "create")(create)
    command(app, "write")(write)
    command(app, "status")(status)


def create(
    session: Session,
    where: _WHERE,
    *,
    rows: Annotated[str, typer.Option(metavar="N", help="Rows of the dataset.", show_default=False)],
    columns: Annotated[str, typer.Option(metavar="N", help="Columns of the dataset.", show_default=False)],
    chunk: Annotated[str, typer.Option(metavar="ROWSxCOLUMNS", help="Its HDF5 chunks.")] = "500x1000",
    tasks: Annotated[
        str,
        typer.Option(
            metavar="block|row|column",
            help="Cut the work by chunks, or into bands of about a chunk's size, which cut through the chunks.",
        ),
    ] = "block",
    seed: Annotated[str, typer.Option(metavar="N", help="What the values follow from, with row and column.")] = "0",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a write test that is there.")] = False,
    target: options.Hsds = "",
) -> None:
    """Make a write test: an empty dataset of f8, and the list of its blocks."""
    problems = Problems()
    document = _document(session, where, target, problems) | {
        "verb": "create",
        "rows": problems.parse("--rows", parse_count, rows, 1),
        "columns": problems.parse("--columns", parse_count, columns, 1),
        "chunk": list(problems.parse("--chunk", _chunk, chunk, (1, 1))),
        "cut": problems.parse("--tasks", _cut, tasks, "block"),
        "seed": problems.parse("--seed", _seed, seed, 0),
        "overwrite": overwrite,
    }
    problems.check()
    from client import bench, phrases  # noqa: PLC0415  # protobuf, not for help

    made = {"target": where} | bench.ask(document)
    if session.show.as_json:
        session.show.object(made)
    else:
        field = cast("Status", made)
        blocks = phrases.count(field["blocks"], field["tasks"])
        session.show.line(f"{where}: {blocks}, {phrases.size(field['bytes'])}; now run `bench hsds write`, anywhere")


def write(
    session: Session,
    where: _WHERE,
    *,
    writers: Annotated[str, typer.Option(metavar="N", help="Processes that write beside each other.")] = "1",
    blocks: Annotated[
        str | None, typer.Option(metavar="N", help="Blocks that each of them writes at most.", show_default=False)
    ] = None,
    lease: Annotated[
        str, typer.Option(metavar="SECONDS", help="Take a block whose writer was silent for so long.")
    ] = "30",
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="End when nothing is left to take, also if others still write.")
    ] = False,
    verbose: _VERBOSE = False,
    target: options.Hsds = "",
) -> None:
    """Write blocks of a write test until all are done; any number of these may run, on any machine."""
    problems = Problems()
    document = _document(session, where, target, problems) | {
        "verb": "write",
        "lease": problems.parse("--lease", _seconds, lease, 1.0),
        "most": problems.parse("--blocks", parse_count, blocks, 0),
        "wait": not no_wait,
    }
    count = problems.parse("--writers", parse_count, writers, 1)
    if count > _MOST_WRITERS:
        problems.say("--writers", f"more than {_MOST_WRITERS} on one machine measure the machine")
    problems.check()
    from client import bench  # noqa: PLC0415  # not for help

    each: list[Block] = []

    def told(block: Block) -> None:
        if verbose and session.show.as_json:
            each.append(block)
        elif verbose:
            session.show.line(_line(block))

    ended = bench.write(document, count, told)
    if ended.figures:
        _show_written(session, ended.figures, each if verbose else None)
    if ended.errors:
        raise ended.errors[0]


def status(
    session: Session,
    where: _WHERE,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every written block as users do, and compare it; exit code 9.")
    ] = False,
    plot: Annotated[
        str, typer.Option(metavar="FILE.png", help="Draw the run into this file.", show_default=False)
    ] = "",
    verbose: _VERBOSE = False,
    target: options.Hsds = "",
) -> Exit | None:
    """Show how far a write test is, and how fast its writers were."""
    problems = Problems()
    document = _document(session, where, target, problems) | {"verb": "status", "verify": verify, "blocks": verbose}
    if plot:
        document["plot"] = str(Path(plot).absolute())
    problems.check()
    from client import bench  # noqa: PLC0415  # not for help

    found = {"target": where} | bench.ask(document)
    differences = cast("list[Difference]", found.get("differences", []))
    if session.show.as_json:
        session.show.object(found)
    else:
        _show_status(session, cast("Status", found), cast("list[dict[str, JSON]]", found.get("each", [])))
        if verify:
            _show_verified(session, cast("int", found["verified"]), differences)
    return Exit.CORRUPT if differences else None


def _document(session: Session, where: str, target: str, problems: Problems) -> dict[str, JSON]:
    from client.embedded import find_config  # noqa: PLC0415  # not for help

    if not where.startswith(_SCHEME):
        if ":" in where and not where.startswith((".", "/")):
            problems.say(
                "TARGET", f"'{where}' is neither {_SCHEME}FOLDER/NAME nor a file here: write ./{where} for one"
            )
        if target:
            problems.say("--target", "names an HSDS server, and a file is in none")
        return {"where": str(Path(where).absolute())}
    config = find_config(session.settings.config)
    return {"where": where, "target": target, "config": str(config) if config else None}


def _show_written(session: Session, figures: Sequence[Figures], each: Sequence[Block] | None) -> None:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    wrote = [one for one in figures if one["blocks"]]
    size, blocks = sum(one["bytes"] for one in figures), sum(one["blocks"] for one in figures)
    seconds = max(one["end"] for one in wrote) - min(one["start"] for one in wrote) if wrote else 0.0
    stored = max((one["end"] + one["flush_seconds"] for one in wrote), default=0.0)
    stored -= min((one["start"] for one in wrote), default=0.0)
    if session.show.as_json:
        shape: dict[str, JSON] = {"blocks": blocks, "bytes": size, "seconds": seconds, "seconds_until_stored": stored}
        shape["bytes_per_second"] = size / seconds if seconds else 0.0
        shape["writers"] = [_rated(one) for one in figures]
        if each is not None:
            shape["each"] = cast("list[JSON]", each)
        session.show.object(shape)
        return
    for one in figures:
        rate = phrases.rate(one["bytes"] / one["seconds"]) if one["seconds"] else "-"
        lost = f", {one['overtaken']} taken by others meanwhile" if one["overtaken"] else ""
        won = f", {one['taken_over']} taken over from the silent" if one["taken_over"] else ""
        session.show.line(f"{one['writer']}: {phrases.count(one['blocks'], 'block')}, {rate}{won}{lost}")
    rate = phrases.rate(size / seconds) if seconds else "-"
    whole = f"{phrases.count(blocks, 'block')}, {phrases.size(size)} in {phrases.seconds(seconds)} ({rate})"
    session.show.line(f"{whole}; stored after {phrases.seconds(stored)}")


def _rated(one: Figures) -> dict[str, JSON]:
    rate = one["bytes"] / one["seconds"] if one["seconds"] else 0.0
    return {**cast("dict[str, JSON]", one), "bytes_per_second": rate}


def _show_status(session: Session, found: Status, each: Sequence[dict[str, JSON]]) -> None:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    if each:
        headers = (">block", ">row", ">column", "state", ">seconds", "writer")
        names = ("block", "row", "column", "state", "seconds", "writer")
        cells = ([f"{one[n]:.3f}" if n == "seconds" else str(one[n]) for n in names] for one in each)
        session.show.table(headers, cells)
    shares = found["writers"]
    if shares:
        session.show.table(
            (">blocks", ">size", ">rate", ">under way", "writer"),
            (
                (
                    str(one["blocks"]),
                    phrases.size(one["bytes"]),
                    phrases.rate(one["bytes_per_second"]),
                    str(one["holds"]),
                    one["writer"],
                )
                for one in shares
            ),
        )
    left = f"{found['taken']} under way, {found['pending']} pending, {found['taken_over']} taken over from the silent"
    rate = f" in {phrases.seconds(found['seconds'])} ({phrases.rate(found['bytes_per_second'])})"
    done = f"{found['done']} of {phrases.count(found['blocks'], found['tasks'])} done, "
    session.show.line(f"{done}{phrases.size(found['bytes_done'])}{rate if found['done'] else ''}; {left}")


def _show_verified(session: Session, verified: int, differences: Sequence[Difference]) -> None:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    for one in differences:
        place = f"row {one['row']}, column {one['column']}"
        session.show.line(f"WRONG  block {one['number']}: {place} is {one['found']!r}, not {one['expected']!r}")
    fine = verified - len(differences)
    session.show.line(f"read back: {phrases.count(verified, 'block')}, {fine} as written, {len(differences)} not")


def _line(block: Block) -> str:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    place = f"{block['rows']} x {block['columns']} at {block['row']}, {block['column']}"
    rate = phrases.rate(block["bytes"] / block["seconds"]) if block["seconds"] else "-"
    lost = "" if block["counted"] else "; taken by another meanwhile"
    return f"block {block['block']}: {place}, {block['seconds']:.3f} s, {rate}{lost}"


def _chunk(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,10})x(\d{1,10})", text, re.ASCII)
    if not found:
        msg = f"'{text}' is no chunk: write rows and columns like 500x1000"
        raise WordError(msg)
    return int(found[1]), int(found[2])


def _cut(text: str) -> str:
    if text not in _CUTS:
        msg = f"'{text}' is none of {', '.join(_CUTS)}"
        raise WordError(msg)
    return text


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        msg = f"'{text}' is no number of at most 18 digits"
        raise WordError(msg)
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?s?", text, re.ASCII) or not (seconds := float(text.removesuffix("s"))):
        msg = f"'{text}' is no time: write seconds like 30"
        raise WordError(msg)
    return seconds
