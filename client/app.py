"""The command line: enters all commands, and makes an exit code of what typer itself refuses.

Help is plain text: typer's boxes need rich, which alone costs 0.2 s of the 0.3 s that `--help` may take.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from client.commands import (
    arriving,
    benching,
    clusters,
    domains,
    exchanging,
    files,
    hosting,
    ingesting,
    inspecting,
    moving,
    planes,
    pushing,
    reading,
    running,
    syncing,
    tokens,
    transfers,
    watching,
)
from client.errors import Exit, invalid
from client.quick import QuickGroup
from client.session import make_show

_PROGRAM = "cropduster"
_HELP = """Move huge files between storage planes, record by record and proved.

Spray one file or many into the parts of a logical file, despray them back, copy logical files between planes.
"""


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(
        cls=QuickGroup,
        help=help_text,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # 20 ms that only this option pays

        typer.echo(f"{_PROGRAM} {version(_PROGRAM)}")
        raise typer.Exit


def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Where the commands hang."""


def make_app() -> typer.Typer:
    """The whole command line."""
    app = _group(_HELP)
    app.callback(help=_HELP)(_root)
    running.enter(app)
    moving.enter(app)
    pushing.enter(app)
    hosting.enter(app)
    syncing.enter(app)
    ingesting.enter(app)
    reading.enter(app)
    nouns = (
        ("files", (files,), "List, check and change logical files."),
        ("transfers", (transfers,), "Watch and steer transfers."),
        ("planes", (planes,), "Look at the storage behind the server."),
        ("hdf5", (domains, inspecting, exchanging), "Domains and folders of HSDS, and HDF5 files."),
        ("token", (tokens,), "Make keys and tokens for servers that take them."),
        ("cluster", (clusters,), "File servers on Kubernetes: how many there are, and shall be."),
        ("inventory", (watching, arriving), "Watch places where files arrive, and load them into HSDS."),
    )
    for name, modules, help_text in nouns:
        group = _group(help_text)
        for module in modules:
            module.enter(group)
        app.add_typer(group, name=name)
    bench, hsds = _group("Measure the servers behind Cropduster."), _group(benching.HELP)
    benching.enter(hsds)
    bench.add_typer(hsds, name="hsds")
    app.add_typer(bench, name="bench")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line, without the program's name; the exit code.

    Raises:
        KeyboardInterrupt: before a command had begun.
    """
    words = list(arguments)
    has_output = sys.stdout is not None
    _open_closed()
    if not has_output and words[:1] != ["serve"]:  # a server has no result
        msg = "standard output is closed, so nobody would see the result: leave it open, or send it to /dev/null"
        return _fail(msg, words)
    # gRPC's own log lines on stderr would stand beside our errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        code = make_app()(args=words, prog_name=_PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        return _refuse(error, words)
    return int(code or Exit.OK)


def _open_closed() -> None:
    """Give the streams that the caller closed (`<&-`) somewhere to go: Python has None for them.

    Standard input stays None, because to read nothing would be to read an empty file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would be taken for the stream, also by the server we become
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()


def _nowhere() -> TextIO:
    return cast("TextIO", Path(os.devnull).open("w", encoding="utf-8"))


def _refuse(error: typer.TyperException, words: Sequence[str]) -> int:
    """Words that typer could not make a command of."""
    text = error.format_message()
    if text.startswith("Usage:"):  # nothing was asked, so typer answers with the help
        with suppress(BrokenPipeError):
            print(text, file=sys.stderr, flush=True)  # noqa: T201  # help is no result
        return Exit.BAD_REQUEST
    asked = getattr(getattr(error, "ctx", None), "command_path", _PROGRAM)
    message = f"{text.rstrip('.')} (see {asked} --help)"
    return _fail(message, words)


def _fail(message: str, words: Sequence[str]) -> int:
    """Show the error of a command that was not even begun; its exit code."""
    refused = invalid(message)
    make_show(as_json="--json" in words).error(refused)
    return refused.exit
