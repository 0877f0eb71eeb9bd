"""What an ingest needs to be installed."""

from __future__ import annotations

from planes.errors import Refused

# The HDF5 library and the HTTP client are loaded, and need be installed, for who ingests.
# ruff: noqa: PLC0415


def need_library() -> None:
    """Raise Refused where what reads HDF5 files, or speaks to HSDS, is not installed."""
    try:
        import aiohttp  # noqa: F401 -- only whether it is there
        import h5py  # noqa: F401 -- the same
        import hdf5plugin  # noqa: F401 -- the same
    except ModuleNotFoundError as error:
        msg = f"HDF5 into HSDS needs the package {error.name}: pip install 'cropduster[hdf5]'"
        raise Refused(msg, package=error.name or "", extra="hdf5") from error
