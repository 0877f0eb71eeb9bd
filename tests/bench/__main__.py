"""All benches, one after the other."""

from __future__ import annotations

from tests.bench import azure, data_stream, hsds, overhead, posix, s3, small

for bench in (overhead, posix, s3, azure, small, data_stream, hsds):
    bench.main()
