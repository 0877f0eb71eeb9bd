"""How the state of an arrival changes: by what a look sees, and by how a transfer ends. Pure.

    seen → settled → running → done
     ↑        ↑         ├────→ failed
     │        └─────────┤      (another try, later)
     └──────────────────┴────  (another version was seen meanwhile)

Another version makes it `seen` from any state but `running`, which waits for its transfer first; so no version is
loaded twice, and the last one that is seen is loaded. An object that vanishes is `gone`, and comes back as `seen`, or
as `done` in the version that is loaded already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fileserver.landing.watch import State

FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 600.0
"""Seconds before another try: they double from the first to the longest."""
BUSY_PAUSE: Final = 5.0

HOPELESS: Final = frozenset(
    {
        "CALLER_DENIED",
        "CALLER_UNKNOWN",
        "CANCELLED",
        "FORMAT_MISMATCH",
        "INVALID_SPEC",
        "NOT_SUPPORTED",
        "PATH_ESCAPES",
        "TARGET_EXISTS",
    }
)
"""Reasons of errors that another try of the same version would meet again."""

BUSY: Final = frozenset({"PLANE_THROTTLED", "SERVER_BUSY", "SERVER_UNAVAILABLE", "TARGET_BUSY"})
"""Reasons that are none: whoever waits has not failed, and it is not counted as a try."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What a look makes of an arrival."""

    state: State
    fresh: bool
    """Its version is one that was not known: it begins to settle anew."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What the end of a transfer makes of an arrival."""

    state: State
    loaded: bool = False
    """The version that was taken is the loaded one now."""
    pause: float = 0.0
    """Seconds before the next try."""
    tries: int = 0
    """How many there have been of the version that it has now."""


def noticed(state: State, known: str, loaded: str | None, listed: str) -> Noticed:
    """What becomes of an arrival of version `known`, of which `loaded` is loaded, that is listed as `listed`."""
    is_other = listed != known
    if state in {State.RUNNING, State.MARKER}:
        return Noticed(state, is_other)
    if not is_other and state is not State.GONE:
        return Noticed(state, fresh=False)
    return Noticed(State.DONE, fresh=False) if listed == loaded else Noticed(State.SEEN, fresh=True)


def ended(version: str, taken: str | None, tries: int, most: int, reason: str) -> Ended:
    """What becomes of an arrival whose transfer of version `taken` has ended.

    Args:
        version: as it was seen last.
        taken: what the transfer was made for.
        tries: of that version, this one among them.
        most: tries that are allowed.
        reason: of the transfer's error; empty if it has succeeded.
    """
    if not reason:
        return Ended(State.DONE if version == taken else State.SEEN, loaded=True)
    if version != taken:
        return Ended(State.SEEN)
    if reason in BUSY:
        return Ended(State.SETTLED, pause=BUSY_PAUSE, tries=tries - 1)
    if reason in HOPELESS or tries >= most:
        return Ended(State.FAILED, tries=tries)
    return Ended(State.SETTLED, pause=min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE), tries=tries)


def marker_of(pattern: str, key: str) -> str:
    """The key of the marker of an object: beside it, `*` stands for its name."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + pattern.replace("*", name)


def is_marker(pattern: str, key: str) -> bool:
    """Whether a key is that of a marker."""
    if not pattern:
        return False
    name = key.rpartition("/")[2]
    before, star, behind = pattern.partition("*")
    if not star:
        return name == pattern
    return len(name) > len(before) + len(behind) and name.startswith(before) and name.endswith(behind)
