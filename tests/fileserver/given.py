"""Planes of a configuration that no file says."""

from fileserver.configured import Configured
from planes.memory import MemorySettings


class Planes(Configured):
    """Planes handed in as they are; the default is `target`, or else the first."""

    def __init__(self, **planes) -> None:
        default = "target" if "target" in planes else next(iter(planes), "")
        super().__init__({name: MemorySettings() for name in planes}, default)
        self._open = planes
