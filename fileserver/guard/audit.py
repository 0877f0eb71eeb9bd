"""A line for every call: who, from where, which method, what it named, how it ended, and how long it took.

Names come from callers, so what is not plain text in them is written as an escape. There are no contents of requests in
it but those names, and no token, cookie or certificate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import structlog

from fileserver.auth import caller
from fileserver.calls import HEALTH, Call, CallerGone, hear
from fileserver.guard.needs import EVERYWHERE, Need
from fileserver.log import redact
from planes.errors import Error

LOGGER: Final = "audit"
MOST: Final = 20
"""Names in one line."""
_LONGEST: Final = 200
_log = structlog.stdlib.get_logger(LOGGER)


class Audits:
    """Writes the lines.

    Args:
        where: the listener, as the line has it: "internal" or "external".
        default_plane: the plane of a spray that names none.
        clock: monotonic seconds.
    """

    def __init__(
        self, where: str, default_plane: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._where = where
        self._default_plane = default_plane
        self._clock = clock

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Write a line when the call has ended, however it ends; health checks leave none.

        An agent stays, for months perhaps: that it has come is told at once, with BEGUN for a result.
        """
        if call.method.startswith(HEALTH):
            yield
            return
        line, result = _Line(self._where, call, self._default_plane, self._clock), "OK"
        hear(line)
        try:
            yield
        except Error as error:
            result = error.reason
            raise
        except (asyncio.CancelledError, CallerGone):
            result = "CANCELLED"
            raise
        except BaseException:
            result = "BUG"
            raise
        finally:
            line.write(result)


class _Line:
    """The line of one call."""

    def __init__(self, where: str, call: Call, default_plane: Callable[[], str], clock: Callable[[], float]) -> None:
        self._where = where
        self._call = call
        self._default_plane = default_plane
        self._clock = clock
        self._began = clock()
        self._told: list[str] = []

    def about(self, what: str) -> None:
        """It names this, too."""
        if what not in self._told[:MOST]:
            self._told.append(what)

    def begun(self) -> None:
        """Write it, although the call goes on."""
        self.write("BEGUN")

    def write(self, result: str) -> None:
        """Write it."""
        _log.info(
            "call",
            side=self._where,
            who=plain(caller().name) or ("own user" if caller().local else ""),
            peer=plain(self._call.context.peer()),
            method=self._call.method.removeprefix("/fileserver.v1."),
            named=[*named(self._call, self._default_plane()), *map(plain, self._told[:MOST])],
            result=result,
            ms=round((self._clock() - self._began) * 1000, 1),
        )


def named(call: Call, default_plane: str) -> list[str]:
    """What a request is about, as far as it can be understood: `read data:in/x`."""
    row = EVERYWHERE.get(call.method)
    if row is None or call.request is None:
        return []
    found: list[str] = []
    try:
        wants = iter(row(call.request, default_plane))
        found += map(_shown, islice(wants, MOST))
        if rest := sum(1 for _ in wants):
            found.append(f"and {rest} more")
    except Error:  # a name that is none: the call has been told so
        found.append("…")
    return found


def plain(text: str) -> str:
    """Text in which nothing can act on who reads it: control and invisible characters are escapes, and it ends."""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text[:_LONGEST])
    return shown + "…" * (len(text) > _LONGEST)


def configure(file: Path | None) -> None:
    """Have the lines in a file of their own, as JSON, instead of in the log.

    Raises:
        OSError: the file cannot be written.
    """
    logger = logging.getLogger(LOGGER)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.propagate = file is None
    logger.setLevel(logging.INFO)  # whatever the log's level is: they are no debugging aid
    if file is None:
        return
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ]
        )
    )
    logger.addHandler(handler)


def _shown(want: Any) -> str:
    if isinstance(want, Need):
        return plain(f"{want.verb} {want.thing.shown}")
    return plain(f"{want.kind} {want.name}" if hasattr(want, "kind") else want.what)
