"""Ingests through the installed command line: a server of ours that is killed, and a bucket in S3."""

import json
import time
from pathlib import Path

import h5py
import h5pyd
import numpy as np
import pytest

from tests.doubles import hsds, seaweedfs

COUNT = 150  # several batches of small files
VALUES = np.random.default_rng(7).random((16, 65536))  # 8 MiB: S3 copies ranges out of objects over 5 MiB


def configure(machine, server, planes):
    machine.environment |= {"HS_PASSWORD": server.password}
    machine.configure(
        f"planes:\n{planes}"
        f"hsds:\n  main: {{endpoint: '{server.endpoint}', bucket: {server.bucket}, username: admin,"
        " password: {env: HS_PASSWORD}, storage: bucket}\n"
    )


def test_a_server_that_is_killed_amid_many_files_is_taken_up_where_it_was(machine, tmp_path):
    folder = machine.folder / "data"
    folder.mkdir()
    for i in range(COUNT):
        with h5py.File(folder / f"{i:03}.h5", "w") as file:
            file["d"] = np.full(100, i)
    with hsds.running(tmp_path / "hsds") as server:
        planes = f"  data: {{type: posix, path: {folder}}}\n  bucket: {{type: posix, path: {server.storage}}}\n"
        configure(machine, server, planes)
        name = machine("ingest", "data:", "hdf5://home/admin/", "--no-wait", "--json").json["name"]
        home = server.storage / "home/admin"
        while not any(server.storage.glob("db/*/d")):
            time.sleep(0.001)  # files come without an event
        machine.kill()  # of several batches one has begun to write
        assert len(list(home.glob("*.h5/.domain.json"))) < COUNT
        done = machine("transfers", "watch", name, "--json").json
        assert done["outcome"]["files"]["loaded"] == COUNT
        listed = machine("hdf5", "ls", "hdf5://home/admin", "--json").json["domains"]
        assert sorted(each["domain"].rpartition("/")[2] for each in listed) == [f"{i:03}.h5" for i in range(COUNT)]
        domain = {"endpoint": server.endpoint, "username": "admin", "password": server.password}
        for i in (0, COUNT // 2, COUNT - 1):
            with h5pyd.File(f"/home/admin/{i:03}.h5", "r", **domain) as file:
                assert set(file["d"][()].tolist()) == {i}
        roots = {each["root"][2:19] for each in listed}
        assert {path.parent.parent.name for path in server.storage.glob("db/*/d/*")} == roots


def peak(pid):
    """MiB that a process has held at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_thousand_files_of_one_ingest_in_bounded_memory_through_three_kills(machine, tmp_path):
    count, folder = 10_000, machine.folder / "data"
    for i in range(count):
        path = folder / f"{i // 1000}" / f"{i:05}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["d"] = np.full(20, i)
    with hsds.running(tmp_path / "hsds") as server:
        planes = f"  data: {{type: posix, path: {folder}}}\n  bucket: {{type: posix, path: {server.storage}}}\n"
        configure(machine, server, planes)
        name = machine("ingest", "data:", "hdf5://home/admin/", "--no-wait", "--json").json["name"]
        home, most = server.storage / "home/admin", 0.0
        for share in (0.1, 0.4, 0.7):
            while sum(1 for _ in home.glob("*/*.h5/.domain.json")) < share * count:
                most = max(most, peak(machine.pid()))
                time.sleep(0.5)  # files come without an event
            machine.kill()
            machine("transfers", "show", name)  # which starts the next server
        while (done := machine("transfers", "show", name, "--json").json)["state"] in {"RUNNING", "PUBLISHING"}:
            most = max(most, peak(machine.pid()))
            time.sleep(0.5)
        assert done["state"] == "SUCCEEDED", done["outcome"]["files"]["exceptions"]
        most = max(most, peak(machine.pid()))
        assert done["outcome"]["files"]["loaded"] == count
        assert most < 300
        found = {path.parent.name: json.loads(path.read_text())["root"] for path in home.glob("*/*/.domain.json")}
        assert sorted(found) == [f"{i:05}.h5" for i in range(count)]
        assert {path.name for path in (server.storage / "db").iterdir()} == {root[2:19] for root in found.values()}
        domain = {"endpoint": server.endpoint, "username": "admin", "password": server.password}
        for i in range(0, count, 997):
            with h5pyd.File(f"/home/admin/{i // 1000}/{i:05}.h5", "r", **domain) as read:
                assert set(read["d"][()].tolist()) == {i}


@pytest.mark.soak  # test_native_copy counts the bytes in one process
def test_source_and_bucket_in_one_s3_and_hardly_a_byte_through_us(machine, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("gzip", data=VALUES, chunks=(4, 65536), compression=1, shuffle=True)
        file["plain"] = VALUES
    size = (tmp_path / "x.h5").stat().st_size
    with seaweedfs.running(tmp_path / "s3") as store, hsds.running(tmp_path / "hsds", store=store) as server:
        machine.environment |= {"AK": store.access_key, "SK": store.secret_key}
        keys = f"endpoint: '{store.endpoint}', access_key: {{env: AK}}, secret_key: {{env: SK}}"
        planes = f"  cloud: {{type: s3, bucket: {server.bucket}, prefix: in/, {keys}}}\n"
        planes += f"  bucket: {{type: s3, bucket: {server.bucket}, {keys}}}\n"
        configure(machine, server, planes)
        machine("sync", f"{tmp_path}", "cloud:", "--include", "*.h5")
        done = machine("ingest", "cloud:x.h5", "hdf5://home/admin/x", "--json").json
        assert done["outcome"]["files"]["verified"] == "sample"
        assert done["progress"]["bytes_native"] > 0.98 * size
        assert done["progress"]["bytes_through_us"] < 0.01 * size
        domain = {"endpoint": server.endpoint, "username": "admin", "password": server.password}
        with h5pyd.File("/home/admin/x", "r", **domain) as read:
            assert np.array_equal(read["gzip"][()], VALUES)
            assert np.array_equal(read["plain"][()], VALUES)
