"""Keys of a plane that is what a store has below a prefix: none leads out of it."""

from __future__ import annotations

from dataclasses import dataclass

from planes.errors import PathEscapes


@dataclass(frozen=True, slots=True)
class Below:
    """From keys to the names that a store has for them.

    Args:
        plane: its name, for errors.
        prefix: of all names.
    """

    plane: str
    prefix: str

    def full(self, key: str) -> str:
        """The name in the store; raises PathEscapes for a key that is empty, absolute or climbs."""
        self._check(key, empty=not key)
        return self.prefix + key

    def full_prefix(self, prefix: str) -> str:
        """The same for the beginning of keys, which may be empty."""
        self._check(prefix)
        return self.prefix + prefix

    def _check(self, key: str, *, empty: bool = False) -> None:
        if empty or key.startswith("/") or ".." in key.split("/"):
            why = "is empty" if empty else "leads out of the plane"
            msg = f"plane {self.plane!r}: the key {key!r} {why}; keys are relative, without `..`"
            raise PathEscapes(msg, plane=self.plane, key=key)
