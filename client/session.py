"""One run of one command: the options that every command takes, the connection it may need, and how it ends.

A command is a function of a `Session` and its own words. gRPC is loaded when a command first asks for the client,
so that help and refused words cost nothing.
"""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, wraps
from io import UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from client.errors import Code, Exit, Reason, ServerError, invalid
from client.quick import QuickCommand
from client.words import WordError, check_text

if TYPE_CHECKING:
    from client.agent import Standby
    from client.api import Client
    from client.rates import Rate
    from client.show import Show

_Server: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        envvar="CROPDUSTER_SERVER",
        help="Use this running server instead of an embedded one; of another machine with --ca, or as https://….",
    ),
]
_Ca: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="FILE", envvar="CROPDUSTER_CA", help="Trust who signed the server's certificate (PEM)."),
]
_Cert: TypeAlias = Annotated[
    str | None, typer.Option(metavar="FILE", envvar="CROPDUSTER_CERT", help="Show the server this certificate (PEM).")
]
_Key: TypeAlias = Annotated[
    str | None, typer.Option("--key", metavar="FILE", envvar="CROPDUSTER_KEY", help="The private key of --cert (PEM).")
]
_TokenFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="CROPDUSTER_TOKEN_FILE",
        help="Show the server the token in this file; CROPDUSTER_TOKEN may hold one, too.",
    ),
]
_State: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        envvar="CROPDUSTER_STATE",
        help="Keep the embedded server's catalogue and jobs in this directory.",
    ),
]
_Config: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="CROPDUSTER_CONFIG",
        help="Configure the embedded server from this file.",
    ),
]
_AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object, errors as one on stderr.")
]


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the options that every command takes; None where not given."""

    server: str | None = None
    state: str | None = None
    config: str | None = None
    as_json: bool = False
    ca: str | None = None
    cert: str | None = None
    cert_key: str | None = None
    token_file: str | None = None

    def as_options(self) -> str:
        """The options that lead another command to the same server, with a space before each."""
        named = (
            ("--server", self.server),
            ("--ca", self.ca),
            ("--cert", self.cert),
            ("--key", self.cert_key),
            ("--token-file", self.token_file),
            ("--state", self.state),
            ("--config", self.config),
        )
        return "".join(f" {option} {shlex.quote(value)}" for option, value in named if value)


class Session:
    """What a command works with.

    Args:
        settings: the options that every command takes.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.carries = False
        """This command carries the files of this machine, even if the server could see them."""
        self.rates: Sequence[Rate] = ()
        """How fast it may do so."""
        self.standby: Standby | None = None
        """What will carry them, where that is known before the server is asked."""

    @cached_property
    def show(self) -> Show:
        """Where results go."""
        return make_show(as_json=self.settings.as_json)

    @cached_property
    def client(self) -> Client:
        """The client of the server that the settings name, else of the embedded one."""
        if self.carries:
            from client.agent import Standby  # noqa: PLC0415  # only for who carries

            self.standby = Standby(self.state)
        # gRPC and the stubs cost 0.15 s, which help and refused words need not pay.
        from importlib.metadata import version  # noqa: PLC0415

        from client.api import Client  # noqa: PLC0415
        from client.connection import Connection, Embedded, Route, Running  # noqa: PLC0415
        from client.credentials import Credentials  # noqa: PLC0415
        from client.embedded import EmbeddedServer, find_config  # noqa: PLC0415

        route: Route
        if self.settings.server:
            given = self.settings
            shown = (given.ca or "", given.cert or "", given.cert_key or "", given.token_file or "")
            route = Running(self.settings.server, Credentials(*shown, token=os.environ.get("CROPDUSTER_TOKEN", "")))
        else:
            config = find_config(self.settings.config)
            told = self.show.note
            route = Embedded(EmbeddedServer(self.state, config, version("cropduster"), os.environ, told))
        return Client(Connection(route), told=self.show.note)

    @cached_property
    def state(self) -> Path:
        """The state directory of the embedded server."""
        from client.embedded import state_directory  # noqa: PLC0415  # loads modules that help need not pay for

        return state_directory(self.settings.state)

    @property
    def spool(self) -> Path:
        """Where standard input is kept: in the state directory of the server that reads it, and sweeps there."""
        from client.spool import FOLDER  # noqa: PLC0415  # only what reads standard input needs it

        state = self.client.server_state if self.settings.server else None
        return (state or self.state) / FOLDER

    def close(self) -> None:
        """Release the connection, if one was made."""
        if self.standby is not None:
            self.standby.close()
        if "client" in self.__dict__:
            self.client.close()


def make_show(*, as_json: bool) -> Show:
    """Where results go; loaded late, because it knows the messages of the wire."""
    from client.show import Show  # noqa: PLC0415  # protobuf costs 0.05 s

    return Show(as_json=as_json)


def command(
    app: typer.Typer, name: str, epilog: str | None = None, like: Callable[..., object] | None = None
) -> Callable[[Callable[..., Exit | None]], Callable[..., int]]:
    """Enter a function as a command, with the fields of `Settings` added to its options.

    The function's first parameter is the session; with `like`, its words are those of another command, and more.
    What it returns,
    or the error it raises, becomes the exit code.
    """

    def enter(function: Callable[..., Exit | None]) -> Callable[..., int]:
        @wraps(function)
        def run(**words: object) -> int:
            session = Session(Settings(**{each.name: words.pop(each.name) for each in _SHARED}))  # type: ignore[arg-type]
            return _run(session, lambda: function(session, **words))

        own = list(inspect.signature(like or function, eval_str=True).parameters.values())[1:]
        if like is not None:
            own += [
                p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY
            ]
        parameters = [*own, *_SHARED]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]  # PEP 362
        app.command(name, cls=QuickCommand, epilog=epilog)(run)
        return run

    return enter


_SHARED: Final[Sequence[inspect.Parameter]] = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, default, annotation in (
        ("server", None, _Server),
        ("ca", None, _Ca),
        ("cert", None, _Cert),
        ("cert_key", None, _Key),
        ("token_file", None, _TokenFile),
        ("state", None, _State),
        ("config", None, _Config),
        ("as_json", False, _AsJson),
    )
)


def _run(session: Session, work: Callable[[], Exit | None]) -> int:
    """The exit code of a command, after its errors have been shown."""
    ended = Exit.OK
    try:
        ended = work() or Exit.OK
        sys.stdout.flush()
    except ServerError as error:
        session.show.error(error)
        ended = error.exit
        return ended
    except BrokenPipeError:
        forget_output()  # whoever read our output has had enough
        return Exit.OK
    except OSError as error:
        failure = local_failure(error)
        session.show.error(failure)
        if error.filename is None:  # perhaps our output failed, and would again when Python flushes it
            forget_output()
        return failure.exit
    except UnicodeEncodeError as error:
        session.show.error(no_text(error))
        return Exit.BAD_REQUEST
    except (KeyboardInterrupt, typer.Abort):
        session.show.error(ServerError(Reason.CANCELLED, Code.CANCELLED, "interrupted"))
        ended = Exit.CANCELLED
        return ended
    else:
        return ended
    finally:
        if ended is Exit.CANCELLED:
            _interrupted.append(session)
        else:
            session.close()


_interrupted: list[Session] = []
"""Kept, because gRPC may wait for ever to close a channel that was interrupted: the end of the process closes it."""


def forget_output() -> None:
    """Send the rest of stdout nowhere: its pipe is broken, and Python would complain again when it flushes that."""
    with suppress(UnsupportedOperation):  # somebody reads our output in this very process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def local_failure(error: OSError) -> ServerError:
    """The error of a file of this machine that the CLI itself could not read or write."""
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        msg = "the current directory is not there any more: change to one that is, or name everything by its whole path"
        return invalid(msg)
    where = f"{error.filename}: " if error.filename else "reading or writing failed: "
    facts = {"path": str(error.filename)} if error.filename else {}
    return ServerError(Reason.PLANE_REFUSED, Code.FAILED_PRECONDITION, f"{where}{error.strerror or error}", facts)


def _is_nowhere() -> bool:
    """Whether the current directory has been deleted."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def no_text(error: UnicodeEncodeError) -> ServerError:
    """The error of a word that is no text; raises `error` itself where the text is sound and only cannot be shown."""
    try:
        check_text(error.object)
    except WordError as wrong:
        return invalid(str(wrong))
    raise error
