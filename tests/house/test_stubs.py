"""Generated code is what proto/ says now, runs on what pyproject.toml asks for, and breaks no caller."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "fileserver" / "v1"
BUF = Path(sys.executable).with_name("buf")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where protoc finds its plugins
    subprocess.run(
        [sys.executable, ROOT / "proto" / "generate.py", folder],
        check=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
    )
    return folder / "fileserver" / "v1"


def test_committed_stubs_are_those_of_the_protos(fresh):
    generated = {p.name: p.read_bytes() for p in fresh.iterdir()}
    committed = {p.name: p.read_bytes() for p in STUBS.iterdir() if "_pb2" in p.name and p.is_file()}
    assert generated
    assert sorted(generated) == sorted(committed)
    assert [name for name in generated if generated[name] != committed[name]] == []


def floor(name):
    """The least version that the distribution itself asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for e in project["optional-dependencies"].values() for d in e)]
    found = [match[1] for d in wanted if (match := re.match(rf"{re.escape(name)}>=([\d.]+)", d))]
    assert len(found) == 1
    return tuple(int(number) for number in found[0].split("."))


def test_the_floor_of_grpcio_is_what_the_stubs_demand():
    demanded = {
        match[1]
        for path in STUBS.glob("*_pb2_grpc.py")
        if (match := re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", path.read_text()))
    }
    assert len(demanded) == 1
    assert floor("grpcio") == tuple(int(number) for number in demanded.pop().split("."))


def test_the_floor_of_protobuf_is_what_the_stubs_demand():
    demanded = {
        tuple(map(int, match.groups()))
        for path in STUBS.glob("*_pb2.py")
        if (match := re.search(r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+),", path.read_text()))
    }
    assert len(demanded) == 1
    least = floor("protobuf")
    assert (*least, 0, 0)[:3] == demanded.pop()


def test_protos_are_in_order():
    done = subprocess.run([BUF, "lint"], cwd=ROOT / "proto", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_caller_of_the_main_branch_breaks():
    """Compares with the newest commit of main that is known here; before the first one there is nobody to break."""
    known = subprocess.run(
        ["git", "ls-tree", "main", "proto/buf.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if not known.stdout.strip():
        return
    done = subprocess.run(
        [BUF, "breaking", "proto", "--against", ".git#branch=main,subdir=proto"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
