"""What `helm test` runs: an object is written, sprayed into parts, read back, compared, and all of it deleted.

The server, and what it is shown, are in the environment, as for every command. PLANE is the plane; without it, the
default one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
from awscrt.checksums import crc32c

from fileserver.v1 import data_pb2, data_pb2_grpc, plane_pb2, plane_pb2_grpc

DATA = b"number,text\n" + b"".join(b"%d,some text\n" % number for number in range(50_000))
STEP = 2**18
SECONDS = 120


def main() -> int:
    """Spray; 0 if the same bytes came back."""
    names = ("CROPDUSTER_CA", "CROPDUSTER_KEY", "CROPDUSTER_CERT")
    credentials = grpc.ssl_channel_credentials(*(Path(os.environ[name]).read_bytes() for name in names))
    with grpc.secure_channel(os.environ["CROPDUSTER_SERVER"], credentials) as channel:
        return tried(channel)


def tried(channel: grpc.Channel) -> int:
    """The same with a channel to the internal address, which takes bytes of those whose certificate it knows."""
    asked = plane_pb2.ListPlanesRequest()
    planes = plane_pb2_grpc.PlaneServiceStub(channel).ListPlanes(asked, timeout=SECONDS)
    plane = os.environ.get("PLANE") or planes.default_plane
    run = uuid.uuid4().hex
    key, sprayed, source = f"helm-test/{run}.csv", f"helmtest::sprayed{run}", f"helmtest::source{run}"
    answers = list(data_pb2_grpc.DataServiceStub(channel).Write(requests(plane, key), timeout=SECONDS))
    assert answers[-1].finished, answers
    try:
        print(cropduster("spray", f"{plane}:{key}", sprayed, "--plane", plane, "--parts", "4").decode())
        same = cropduster("cat", sprayed) == DATA
        cropduster("files", "delete", sprayed)
    finally:
        cropduster("files", "register", source, f"{plane}:{key}")
        cropduster("files", "delete", source, "--with-parts", "--yes")
    print("the same bytes came back" if same else "OTHER BYTES came back")
    return 0 if same else 1


def cropduster(*words: str) -> bytes:
    """What a command prints."""
    return subprocess.run(["cropduster", *words], stdout=subprocess.PIPE, timeout=SECONDS, check=True).stdout


def requests(plane: str, key: str) -> Iterator[data_pb2.WriteRequest]:
    """The object in messages."""
    for offset in range(0, len(DATA), STEP):
        data = DATA[offset : offset + STEP]
        first = {"write_id": uuid.uuid4().hex, "plane": plane, "key": key} if not offset else {}
        last = offset + STEP >= len(DATA)
        yield data_pb2.WriteRequest(**first, offset=offset, data=data, crc32c=crc32c(data), finish=last)


if __name__ == "__main__":
    sys.exit(main())
