"""What HDF5 files, and HSDS, need to be installed; imported only to see whether it is there."""

from __future__ import annotations

from importlib import import_module

from planes.errors import Refused


def need_library() -> None:
    """Raise Refused where what reads HDF5 files is not installed."""
    _need("HDF5 files need", "h5py", "hdf5plugin")


def need_all() -> None:
    """Raise Refused where what reads HDF5 files, or speaks to HSDS, is not installed."""
    _need("HDF5 into HSDS needs", "aiohttp", "h5py", "hdf5plugin")


def _need(who: str, *packages: str) -> None:
    try:
        for name in packages:
            import_module(name)
    except ModuleNotFoundError as error:
        msg = f"{who} the package {error.name}: pip install 'cropduster[hdf5]'"
        raise Refused(msg, package=error.name or "", extra="hdf5") from error
