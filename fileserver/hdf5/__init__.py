"""HDF5 into HSDS: reading files, loading, proving, publishing domains."""
