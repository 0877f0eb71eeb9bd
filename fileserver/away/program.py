"""An agent as a program: its orders come on standard input, and it lives as long as that stays open."""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys

from fileserver import log
from fileserver.away.work import Agent, Orders
from planes.errors import Error


def main() -> int:
    """Work until standard input ends: 0; 6 if another agent has taken the place, 3 if the file servers refuse it.

    The first line is a JSON object with the fields of `Orders`: its secrets stand in no list of processes.
    """
    log.configure("warning", "console", None)
    line = sys.stdin.buffer.readline()
    if not line:  # whoever started us was gone before it could say for what
        return 0
    orders = _orders(line)
    try:
        return asyncio.run(_run(orders))
    except Error as error:
        print(f"cropduster agent: {error.message}", file=sys.stderr)  # noqa: T201  # for people
        return 3


def _orders(line: bytes) -> Orders:
    told = json.loads(line)
    metadata = tuple((str(key), str(value)) for key, value in told.pop("metadata", ()))
    return Orders(**told, metadata=metadata)


async def _run(orders: Orders) -> int:
    agent = Agent(orders, ready=lambda: print("ready", flush=True))  # noqa: T201  # who started us waits for it
    loop = asyncio.get_running_loop()
    descriptor, gone = sys.stdin.fileno(), asyncio.Event()

    def heard() -> None:
        if not os.read(descriptor, 4096):  # whoever started us has gone, in whatever way
            loop.remove_reader(descriptor)
            agent.end()
            gone.set()

    if select.select([descriptor], [], [], 0)[0]:
        heard()  # before we dial: we would take the place of the agent of who comes after
    if not gone.is_set():
        loop.add_reader(descriptor, heard)
    return 0 if await agent.run() else 6
