"""Commands whose words typer does not convert.

typer 0.29 loads pydantic to convert words, which takes longer than a call to a server (0.13 s), and refuses arguments
that are no UTF-8 in words of its own. Our parameters are text and flags, which need no conversion; `client.words`
reads what the text means. A typer that converts in another way ignores what is set here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final  # typer's own classes for contexts and parameters are private

from typer.core import TyperCommand, TyperGroup


class _Verbatim:
    """Gives words to commands as they were typed; stands in for typer's own conversion."""

    def coerce(self, value: object, *, param: object, ctx: object) -> object:  # noqa: ARG002  # typer names them
        return value


_VERBATIM: Final = _Verbatim()


def _verbatim() -> _Verbatim:
    return _VERBATIM


def _unconverted(parameters: Iterable[Any]) -> None:
    for parameter in parameters:
        parameter.get_runtime_param = _verbatim


class QuickCommand(TyperCommand):
    """One command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All its parameters, the help option included."""
        parameters = super().get_params(ctx)
        _unconverted(parameters)
        return parameters


class QuickGroup(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All its parameters, the help option included."""
        parameters = super().get_params(ctx)
        _unconverted(parameters)
        return parameters
