"""All benches, one after the other."""

from __future__ import annotations

from tests.bench import data_stream, overhead, posix, s3

for bench in (overhead, posix, s3, data_stream):
    bench.main()
