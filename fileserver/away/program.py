"""An agent as a program. That of a command has its orders on standard input and lives as long as that stays open.

That of a host has them there, too, and lives until a signal ends it: the first once what is under way is done, the
second at the next step.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import threading
from importlib import import_module
from typing import Final

from fileserver import log
from fileserver.away.work import Agent, Orders
from fileserver.errors import CallerDenied, CallerUnknown, InvalidSpec
from planes.errors import Error

REPLACED: Final = 6
"""Exit code of an agent whose place another has taken."""
_REFUSED: Final = 3


def main() -> int:
    """Work until the end: 0; 6 if another agent has taken the place, 3 if the file servers refuse it.

    The agent of a host ends with 2 where its orders make no sense to them, and 8 for what may be over the next time.

    The first line is a JSON object with the fields of `Orders`: its secrets stand in no list of processes.
    """
    line = sys.stdin.buffer.readline()
    if not line:  # whoever started us was gone before it could say for what
        return 0
    orders = _orders(line)
    log.configure("warning", "console", None)
    try:
        return asyncio.run(_serve(orders) if orders.host else _run(orders))
    except Error as error:
        print(f"cropduster agent: {_shown(error.message)}", file=sys.stderr)  # noqa: T201  # for people
        if not orders.host or isinstance(error, CallerDenied | CallerUnknown):
            return _REFUSED
        return 2 if isinstance(error, InvalidSpec) else 8


def _orders(line: bytes) -> Orders:
    told = json.loads(line)
    metadata = tuple((str(key), str(value)) for key, value in told.pop("metadata", ()))
    return Orders(**told, metadata=metadata)


def _shown(text: str) -> str:
    """What a file server says, with nothing in it that steers a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


async def _serve(orders: Orders) -> int:
    """The agent of a host, until it is told to end."""
    planes = ", ".join(f"{plane} ({folder})" for plane, folder in orders.planes.items())
    known = f"cropduster agent: host {orders.host} serves {planes} at {orders.server}"
    agent = Agent(orders, ready=lambda: print(known, flush=True))  # noqa: T201  # for people
    told = False

    def end() -> None:
        nonlocal told
        if told:
            agent.end()
        else:
            agent.leave()
        told = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    if await agent.run():
        return 0
    msg = f"another agent of host {orders.host} has taken the place of this one, which ends: a host has one agent"
    print(f"cropduster agent: {msg}", file=sys.stderr)  # noqa: T201  # for people
    return REPLACED


async def _run(orders: Orders) -> int:
    def ready() -> None:
        print("ready", flush=True)  # noqa: T201  # who started us waits for it
        if orders.reads:  # while they ask the file server, we load what is asked of us first then
            threading.Thread(target=import_module, args=("fileserver.transfer.partition",), daemon=True).start()

    agent = Agent(orders, ready)
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
    return 0 if await agent.run() else REPLACED
