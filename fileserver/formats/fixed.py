"""Records of one length: arithmetic alone, no byte is read."""

from __future__ import annotations

from dataclasses import dataclass

from fileserver.formats.faults import Mismatch, counted


@dataclass(frozen=True, slots=True)
class Fixed:
    """Records of one length in bytes."""

    record_size: int


def problems(form: Fixed) -> dict[str, str]:
    """What is wrong with the format itself, by field; empty if nothing is."""
    if form.record_size < 1:
        return {"record_size": f"{form.record_size} bytes is not a record; it must be 1 or more"}
    return {}


def check(form: Fixed, size: int) -> None:
    """Raise Mismatch unless `size` bytes are whole records."""
    rest = size % form.record_size
    if rest:
        whole = size // form.record_size
        why = (
            f"its size, {counted(size, 'byte')}, is not a multiple of the record size {form.record_size}: "
            f"{counted(rest, 'byte')} left after {counted(whole, 'record')}"
        )
        raise Mismatch(why, size - rest, record=whole + 1, hint="give the right size with --format fixed:<record size>")


def start(form: Fixed, target: int) -> int:
    """The record start at or before `target`."""
    return target // form.record_size * form.record_size
