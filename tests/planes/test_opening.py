"""From a configuration to planes: what is right opens, what is wrong is named with its path and without its value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from planes import opening
from planes.errors import Refused
from planes.limited import LimitedPlane
from planes.memory import MemoryPlane, MemorySettings
from planes.metered import MeteredPlane
from planes.opening import Problem, SettingsInvalid, open_local, open_plane, parse_settings
from planes.posix import PosixPlane, PosixSettings
from planes.retrying import RetryingPlane
from planes.wrapped import find


def problems(name: str, mapping: object) -> list[Problem]:
    with pytest.raises(SettingsInvalid) as caught:
        parse_settings(name, mapping)
    return list(caught.value.problems)


def test_a_full_configuration_of_a_directory():
    given = {
        "type": "posix",
        "path": "/srv/data",
        "category": "lz",
        "default_parts": 4,
        "durability": "os",
        "symlinks": "refuse",
        "limits": {"requests": 8, "bytes_per_second": 500_000_000},
    }
    found = parse_settings("data", given)
    assert isinstance(found, PosixSettings)
    assert (found.path, found.category, found.default_parts) == (Path("/srv/data"), "lz", 4)
    assert (found.durability, found.symlinks) == ("os", "refuse")
    assert (found.limits.requests, found.limits.bytes_per_second) == (8, 500_000_000)


def test_what_is_left_out_has_a_default():
    found = parse_settings("data", {"type": "posix", "path": "/srv"})
    assert isinstance(found, PosixSettings)
    assert (found.durability, found.symlinks, found.category, found.default_parts) == ("fsync", "inside", "data", 1)
    assert (found.limits.requests, found.limits.bytes_per_second) == (64, 0)


@pytest.mark.parametrize(
    ("mapping", "path", "words"),
    [
        (None, "planes.data", "type"),
        ({}, "planes.data.type", "posix, s3, azure, memory"),
        ({"type": "ftp"}, "planes.data.type", "posix, s3, azure, memory"),
        ({"type": ["posix"]}, "planes.data.type", "posix, s3, azure, memory"),
        ({"type": "posix"}, "planes.data.path", "required"),
        ({"type": "posix", "path": "data"}, "planes.data.path", "absolute"),
        ({"type": "posix", "path": "/d", "pfad": 1}, "planes.data.pfad", "not a known key; known here: type"),
        ({"type": "posix", "path": "/d", "limits": {"requests": 0}}, "planes.data.limits.requests", "greater"),
        ({"type": "posix", "path": "/d", "limits": {"reqs": 1}}, "planes.data.limits.reqs", "not a known key"),
        ({"type": "posix", "path": "/d", "default_parts": 0}, "planes.data.default_parts", "greater"),
        ({"type": "posix", "path": "/d", "category": "x"}, "planes.data.category", "'data' or 'lz'"),
    ],
)
def test_a_mistake_is_named_with_its_path(mapping, path, words):
    [problem] = problems("data", mapping)
    assert problem.path == path
    assert words in problem.message


def test_all_mistakes_are_named_at_once():
    found = problems("data", {"type": "posix", "nonsense": 1, "durability": "maybe"})
    assert {p.path for p in found} == {"planes.data.path", "planes.data.nonsense", "planes.data.durability"}


@pytest.mark.parametrize("name", ["", "local", "Data", "a b", "a:b", "../x", "1st"])
def test_a_name_that_no_command_line_could_hold_is_refused(name):
    [problem] = problems(name, {"type": "memory"})
    assert "lower-case" in problem.message


@pytest.mark.parametrize("secret", ["hunter2", {"env": "AK", "value": "hunter2"}, {"value": "hunter2"}, ["hunter2"]])
def test_a_secret_that_is_written_down_is_refused_without_repeating_it(secret):
    given = {"type": "s3", "bucket": "lake", "access_key": {"env": "AK"}, "secret_key": secret}
    with pytest.raises(SettingsInvalid) as caught:
        parse_settings("cloud", given)
    [problem] = caught.value.problems
    assert problem.path == "planes.cloud.secret_key"
    assert "{env: NAME}" in problem.message
    chain, error = [], caught.value
    while error is not None:
        chain.append(f"{error!r} {error}")
        error = error.__cause__
    assert "hunter2" not in " ".join(chain)


async def test_a_plane_gets_its_layers_in_order(tmp_path):
    settings = PosixSettings(path=tmp_path, limits={"requests": 3})
    plane = open_plane("data", settings)
    kinds = []
    layer = plane
    while layer is not None:
        kinds.append(type(layer))
        layer = getattr(layer, "inner", None)
    assert kinds == [RetryingPlane, LimitedPlane, MeteredPlane, PosixPlane]
    assert find(plane, LimitedPlane).pace.limits.requests == 3
    assert find(plane, MeteredPlane).snapshot().requests == {}
    assert find(plane, MemoryPlane) is None
    assert plane.name == "data"
    await plane.put("f", b"x", upload_id="u")
    assert (tmp_path / "f").read_bytes() == b"x"
    await plane.aclose()


async def test_the_local_plane_is_decorated_too(tmp_path):
    plane = open_local()
    assert plane.name == "local"
    (tmp_path / "f").write_bytes(b"x")
    assert (await plane.stat(str(tmp_path / "f").lstrip("/"))).size == 1
    await plane.aclose()


def test_settings_of_another_provider_are_a_bug():
    class Strange(MemorySettings):
        type: str = "posix"

    with pytest.raises(TypeError, match="Strange"):
        open_plane("data", Strange())


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    for module in [m for m in sys.modules if m.startswith(("planes.s3", "boto3."))]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(Refused, match=r"pip install 'cropduster\[s3\]'"):
        parse_settings("cloud", {"type": "s3", "bucket": "lake"})
    assert parse_settings("data", {"type": "memory"}) == MemorySettings()


def test_a_module_of_ours_that_is_missing_is_not_blamed_on_the_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "planes.memory", None)
    with pytest.raises(ModuleNotFoundError):
        opening.provider("memory")


def test_the_sdk_of_a_store_is_loaded_only_for_a_store():
    code = (
        "import sys; from planes.opening import *; "
        "open_plane('d', parse_settings('d', {'type': 'posix', 'path': '/'})); "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in {'boto3', 'botocore', 'obstore'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
