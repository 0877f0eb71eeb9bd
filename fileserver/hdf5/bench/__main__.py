"""`python -m fileserver.hdf5.bench DOCUMENT`: what `cropduster bench hsds` starts, a process for each writer.

The command line knows the wire alone, and what is measured must not share a process with a file server. What is asked
comes as one JSON document (`asked`), and what is found goes to standard output, one JSON object a line: `{"block": …}`
as blocks are written, `{"result": …}` or `{"error": {"code", "reason", "message", "metadata", "violations"}}` last.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fileserver import config
from fileserver.errors import InvalidSpec
from fileserver.hdf5.bench import asked, field, hsds, local
from fileserver.hdf5.bench.claims import Claims
from fileserver.hdf5.bench.plot import plot
from fileserver.hdf5.bench.report import Report, report
from fileserver.hdf5.bench.site import Row, State, each
from fileserver.hdf5.bench.verify import Difference, compare_domain, compare_file
from fileserver.hdf5.bench.write import Written, name, write
from fileserver.hdf5.hsds.address import SCHEME, parse
from fileserver.hdf5.hsds.settings import HsdsSettings
from fileserver.hdf5.hsds.targets import Targets, connect
from planes.errors import Error
from planes.retrying import Patience

if TYPE_CHECKING:
    from fileserver.hdf5.bench.site import Site
    from fileserver.hdf5.hsds.connection import JSON, Connection

Result: TypeAlias = "dict[str, JSON]"


def main(words: list[str]) -> int:
    """Do what one document asks; 0, or 1 after an error was told."""
    try:
        result = asyncio.run(_answer(asked.READER.validate_json(words[0])))
    except Error as error:
        _tell("error", _failure(error))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):  # asked to end; what we held was given back
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever asked is gone
        return 1
    _tell("result", result)
    return 0


async def _answer(document: asked.Asked) -> Result:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if isinstance(document, asked.Create):
        return await _create(document)
    if isinstance(document, asked.Write):
        return await _write(document)
    return await _status(document)


async def _create(document: asked.Create) -> Result:
    made = field.checked(document.rows, document.columns, document.chunk, document.cut, document.seed)
    if settings := _server(document):
        async with aclosing(_connection(settings)) as connection:
            await hsds.make(connection, parse(document.where), made, overwrite=document.overwrite)
    else:
        await asyncio.to_thread(local.make, Path(document.where), made, overwrite=document.overwrite)
    return _described(made)


async def _write(document: asked.Write) -> Result:
    async with aclosing(await _open(document)) as site:
        claims = Claims(site, name(), document.lease)
        figures = await write(site, claims, _told, most=document.most, wait=document.wait)
    return dict(asdict(figures))


async def _status(document: asked.Status) -> Result:
    async with aclosing(await _open(document)) as site:
        rows = await site.rows()
    said = report(site.field, rows)
    result = _described(site.field) | _reported(said)
    if document.blocks:
        result["each"] = [_row(site.field, row) for row in each(rows)]
    if document.verify:
        written = [int(number) for number in rows["block"][rows["state"] == State.DONE]]
        result["verified"] = len(written)
        result["differences"] = [dict(asdict(each)) for each in await _compare(document, site, written)]
    if document.plot:
        await asyncio.to_thread(plot, site.field, rows, document.plot)
        result["plot"] = str(document.plot)
    return result


async def _compare(document: asked.Status, site: Site, written: list[int]) -> list[Difference]:
    if settings := _server(document):
        return await compare_domain(settings[1], parse(document.where), site.field, written)
    return await compare_file(Path(document.where), site.field, written)


async def _open(document: asked.Asked) -> Site:
    if not (settings := _server(document)):
        return await local.opened(Path(document.where))
    connection = _connection(settings)
    try:
        return await hsds.opened(connection, parse(document.where))
    except BaseException:  # also Ctrl-C: nobody else closes it
        await connection.aclose()
        raise


def _server(document: asked.Asked) -> tuple[str, HsdsSettings] | None:
    """The server that is meant; None for a file."""
    if not document.where.startswith(SCHEME):
        if document.target:
            msg = "--target names an HSDS server, and a file is in none"
            raise InvalidSpec(msg, {"target": msg})
        return None
    parse(document.where)
    targets = Targets(config.load(document.config, os.environ).hsds)
    return targets.name(document.target), targets.settings(document.target)


def _connection(server: tuple[str, HsdsSettings]) -> Connection:
    return connect(*server, Patience())


def _described(made: field.Field) -> Result:
    return {
        "rows": made.rows,
        "columns": made.columns,
        "chunk": list(made.chunk),
        "tasks": made.cut,
        "seed": made.seed,
        "blocks": made.blocks,
        "bytes": made.size,
    }


def _reported(said: Report) -> Result:
    return {
        "pending": said.pending,
        "taken": said.taken,
        "done": said.done,
        "bytes_done": said.bytes,
        "seconds": said.seconds,
        "bytes_per_second": said.rate,
        "taken_over": said.taken_over,
        "writers": [{**asdict(share), "bytes_per_second": share.rate} for share in said.shares],
    }


def _row(of: field.Field, row: Row) -> Result:
    place = of.block(row.block)
    return {
        "block": row.block,
        **asdict(place),
        "state": row.state.name.lower(),
        "writer": row.writer,
        "claims": row.claims,
        "start": row.start,
        "seconds": row.seconds,
    }


def _told(written: Written) -> None:
    each: Result = {"block": written.number, **asdict(written.block), "bytes": written.block.size}
    _tell("block", each | {"start": written.start, "seconds": written.seconds, "counted": written.counted})


def _failure(error: Error) -> Result:
    from fileserver.status import code  # noqa: PLC0415 - gRPC, for the number alone

    violations = error.violations if isinstance(error, InvalidSpec) else {}
    number: int = code(error).value[0]
    return {
        "code": number,
        "reason": error.reason,
        "message": error.message,
        "metadata": dict(error.facts),
        "violations": dict(violations),
    }


def _tell(kind: str, what: Result) -> None:
    print(json.dumps({kind: what}), flush=True)  # noqa: T201 - what the command line reads


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
