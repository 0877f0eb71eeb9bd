"""How a command ends: what it releases, and what it had better not wait for."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from client.errors import Code, Exit, Reason, ServerError
from client.session import Session, command


def ended_by(monkeypatch: pytest.MonkeyPatch, end: object) -> tuple[int, list[Session]]:
    """The exit code of a command that ends so, and the sessions that were closed."""
    closed: list[Session] = []
    monkeypatch.setattr(Session, "close", lambda session: closed.append(session))  # noqa: PLW0108 - a builtin would not be bound
    app = typer.Typer()

    @app.callback()
    def program() -> None: ...

    @command(app, "end")
    def _(session: Session) -> Exit | None:
        """End."""
        if isinstance(end, BaseException):
            raise end
        return end

    return CliRunner().invoke(app, ["end"], standalone_mode=False).return_value, closed


@pytest.mark.parametrize(
    "end",
    [
        KeyboardInterrupt(),
        Exit.CANCELLED,
        ServerError(Reason.CANCELLED, Code.CANCELLED, "interrupted before the server answered"),
    ],
)
def test_after_ctrl_c_the_connection_is_left_to_the_end_of_the_process(monkeypatch, end):
    """To close a channel on which a call was interrupted can take for ever."""
    assert ended_by(monkeypatch, end) == (130, [])


@pytest.mark.parametrize("end", [None, ServerError(Reason.FILE_NOT_FOUND, Code.NOT_FOUND, "a::b is not there")])
def test_any_other_end_closes_the_connection(monkeypatch, end):
    code, closed = ended_by(monkeypatch, end)
    assert code == (0 if end is None else 4)
    assert len(closed) == 1
