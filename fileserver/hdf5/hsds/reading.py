"""Members of the server's JSON by kind; what is missing or of another kind is told as an answer that no HSDS gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fileserver.hdf5.hsds import errors
from fileserver.hdf5.hsds.connection import JSON
from fileserver.hdf5.hsds.errors import Asked
from planes.errors import Refused


class Reader:
    """A mapping of an answer."""

    def __init__(self, asked: Asked, found: Mapping[str, JSON]) -> None:
        self._asked = asked
        self._found = found

    def text(self, name: str, default: str | None = None) -> str:
        """A text; raises Refused if it is none, or missing without a default."""
        value = self._found.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number; raises Refused if it is none, or missing without a default."""
        value = self._found.get(name, default)
        if not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return float(value)

    def flag(self, name: str) -> bool:
        """Whether a member is there and true."""
        return bool(self._found.get(name, False))

    def has(self, name: str) -> bool:
        """Whether a member is there."""
        return self._found.get(name) is not None

    def texts(self, name: str) -> list[str]:
        """A list of texts; raises Refused if it is none."""
        value = self._list(name)
        if not all(isinstance(each, str) for each in value):
            raise self._wrong(name, "a list of texts")
        return [str(each) for each in value]

    def items(self, name: str) -> list[Reader]:
        """A list of mappings; raises Refused if it is none."""
        return [self._reader(name, each) for each in self._list(name)]

    def item(self, name: str) -> Reader:
        """A mapping; raises Refused if it is none."""
        return self._reader(name, self._found.get(name))

    def pairs(self, name: str) -> list[tuple[str, Reader]]:
        """A mapping of names to mappings; raises Refused if it is none."""
        found = self.item(name)
        return [(key, self._reader(f"{name}.{key}", each)) for key, each in found._found.items()]  # noqa: SLF001 -- ours

    def value(self, name: str) -> JSON:
        """A member of any kind; None if it is not there."""
        return self._found.get(name)

    def _list(self, name: str) -> Sequence[JSON]:
        value = self._found.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def _reader(self, name: str, value: JSON) -> Reader:
        if not isinstance(value, dict):
            raise self._wrong(name, "a mapping")
        return Reader(self._asked, value)

    def _wrong(self, name: str, kind: str) -> Refused:
        return errors.garbled(self._asked, f"its member {name} is not {kind}")
