"""What a listing comes by and cannot give as an object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why, and its name, readable: a byte that is not UTF-8 as in Python's `backslashreplace`."""

    name: str
    why: str
    has_data: bool
    """It may hold what somebody misses, and only its name is none that a key can have; else it is no file at all."""


Tell: TypeAlias = Callable[[LeftOut], None]
