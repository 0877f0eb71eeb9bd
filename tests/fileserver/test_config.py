"""The configuration: found where it should be, checked whole, free of secrets."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from fileserver import config
from fileserver.errors import InvalidSpec
from planes.settings import PlaneSettings

FULL = """
planes:
  data:  {type: posix, path: /srv/data, default_parts: 4, durability: fsync,
          limits: {requests: 64, bytes_per_second: 500000000}}
  lz:    {type: posix, path: /srv/landing, category: lz}
  cloud: {type: s3, bucket: lake, prefix: in/, endpoint: "https://s3.example", region: us-east-1,
          access_key: {env: AK}, secret_key: {file: /run/secrets/sk}}
listen: {internal: "127.0.0.1:7300"}
state: {directory: /var/lib/cropduster}
log:   {level: info, format: json, file: null}
retire_after: 90m
memory: 2GiB
"""


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(config, "SYSTEM", tmp_path / "system.yaml")


def written(tmp_path, text):
    path = tmp_path / "given.yaml"
    path.write_text(text)
    return path


def violations(tmp_path, text):
    with pytest.raises(InvalidSpec) as caught:
        config.load(written(tmp_path, text), {})
    for key, what in caught.value.violations.items():
        assert f"{key}: {what}" in caught.value.message
    return caught.value.violations


def test_the_whole_configuration_of_the_issue(tmp_path):
    loaded = config.load(written(tmp_path, FULL), {})
    assert list(loaded.planes) == ["data", "lz", "cloud"]
    assert all(isinstance(settings, PlaneSettings) for settings in loaded.planes.values())
    assert (loaded.planes["data"].default_parts, loaded.planes["data"].limits.requests) == (4, 64)
    assert loaded.planes["cloud"].access_key.env == "AK"
    assert loaded.default_plane == "data"
    assert loaded.listen.internal.address == "127.0.0.1:7300"
    assert loaded.listen.external is None
    assert loaded.state_directory == Path("/var/lib/cropduster")
    assert (loaded.log.level, loaded.log.format, loaded.log.file) == ("info", "json", None)
    assert loaded.retire_after == timedelta(minutes=90)
    assert loaded.memory == 2 << 30
    assert not loaded.builtin_plane


def test_no_file_is_one_posix_plane_in_the_state_directory(tmp_path):
    loaded = config.load(None, {}, tmp_path / "state")
    assert list(loaded.planes) == ["data"]
    assert loaded.planes["data"].path == tmp_path / "state" / "data"
    assert loaded.planes["data"].default_parts == 4
    assert (loaded.default_plane, loaded.builtin_plane, loaded.source) == ("data", True, None)
    assert loaded.retire_after == timedelta(hours=1)
    assert loaded.memory == 128 << 20


def test_an_empty_file_and_one_without_planes_get_the_same_plane(tmp_path):
    for text in ("", "# nothing\n", "log: {level: debug}\n"):
        assert config.load(written(tmp_path, text), {}).builtin_plane


def test_the_flag_goes_before_the_environment_the_user_and_the_system(tmp_path):
    places = {
        "flag": written(tmp_path, "retire_after: 1s"),
        "environment": tmp_path / "environment.yaml",
        "user": tmp_path / "user" / "cropduster" / "config.yaml",
        "system": tmp_path / "system.yaml",
    }
    places["user"].parent.mkdir(parents=True)
    for seconds, name in enumerate(("environment", "user", "system"), 2):
        places[name].write_text(f"retire_after: {seconds}s")
    environ = {"CROPDUSTER_CONFIG": str(places["environment"])}

    def seconds(flag, environ):
        return config.load(flag, environ).retire_after.total_seconds()

    assert seconds(places["flag"], environ) == 1
    assert seconds(None, environ) == 2
    assert seconds(None, {"CROPDUSTER_CONFIG": ""}) == 3
    places["user"].unlink()
    assert seconds(None, {}) == 4
    places["system"].unlink()
    assert config.load(None, {}).source is None


def test_the_working_directory_is_never_searched(tmp_path, monkeypatch):
    for name in ("config.yaml", "cropduster.yaml"):
        (tmp_path / name).write_text("retire_after: 5s")
    monkeypatch.chdir(tmp_path)
    assert config.load(None, {}).source is None


@pytest.mark.parametrize("named", ["flag", "environment"])
def test_a_named_file_that_is_not_there_is_an_error(named, tmp_path):
    gone = tmp_path / "gone.yaml"
    flag, environ = (gone, {}) if named == "flag" else (None, {"CROPDUSTER_CONFIG": str(gone)})
    with pytest.raises(InvalidSpec, match=r"gone\.yaml can't be read"):
        config.load(flag, environ)


def test_every_mistake_is_told_at_once_by_its_path(tmp_path):
    found = violations(
        tmp_path,
        """
planes:
  cloud: {type: s3, buckett: lake}
  data: {type: posix, path: relative, limits: {request: 5}}
  Bad: {type: posix, path: /x}
  local: {type: posix, path: /x}
  what: {type: ftp}
  none: 5
plains: {}
listen: {internal: "0.0.0.0:7300", externall: x}
log: {level: loud}
retire_after: soon
memory: 1MiB
default_plane: dota
""",
    )
    assert found["planes.cloud.buckett"] == "unknown key, did you mean bucket?"
    assert found["planes.data.limits.request"] == "unknown key, did you mean requests?"
    assert found["plains"] == "unknown key, did you mean planes?"
    assert found["listen.externall"] == "unknown key, did you mean external?"
    assert "until TLS and tokens are configured" in found["listen.internal"]
    assert found["default_plane"] == "no plane is called dota"
    assert {
        "planes.cloud.bucket",
        "planes.data.path",
        "planes.Bad",
        "planes.local",
        "planes.what.type",
        "planes.none",
        "log.level",
        "retire_after",
        "memory",
    } <= set(found)


def test_a_plane_without_its_path_is_an_error(tmp_path):
    assert "planes.data.path" in violations(tmp_path, "planes: {data: {type: posix}}")


@pytest.mark.parametrize("text", ["planes: {}", "planes:", "planes: [data]"])
def test_planes_must_be_named_or_left_out(text, tmp_path):
    if text == "planes:":
        assert config.load(written(tmp_path, text), {}).builtin_plane
    else:
        assert "at least one" in violations(tmp_path, text)["planes"]


@pytest.mark.parametrize(
    ("names", "default"),
    [
        ({"a": "lz", "b": "data", "c": "data"}, "b"),
        ({"b": "data", "data": "data"}, "data"),
        ({"a": "lz"}, None),
    ],
)
def test_the_default_plane(names, default, tmp_path):
    planes = {name: {"type": "posix", "path": "/x", "category": category} for name, category in names.items()}
    assert config.load(written(tmp_path, json.dumps({"planes": planes})), {}).default_plane == default


def test_the_default_plane_may_be_named(tmp_path):
    text = "planes: {data: {type: memory}, other: {type: memory}}\ndefault_plane: other"
    assert config.load(written(tmp_path, text), {}).default_plane == "other"


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.4.5.6:80", "localhost:7300", "[::1]:7300", "/run/c.sock"])
def test_loopback_addresses_and_sockets_are_taken(address, tmp_path):
    assert config.load(written(tmp_path, f"listen: {{internal: '{address}'}}"), {}).listen.internal.address == address


@pytest.mark.parametrize("address", ["0.0.0.0:7300", "10.0.0.1:1", "[::]:7300", "example.com:1", ":7300", "127.0.0.1"])
@pytest.mark.parametrize("name", ["internal", "external"])
def test_other_addresses_are_refused(address, name, tmp_path):
    assert f"listen.{name}" in violations(tmp_path, f"listen: {{{name}: '{address}'}}")
    with pytest.raises(InvalidSpec):
        config.check_address("--listen", address, config.Config(planes={}, state_directory=tmp_path))


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("90s", 90), ("1.5h", 5400), ("7d", 604800), (" 1 h ", 3600), ("0s", 0)]
)
def test_durations(text, seconds, tmp_path):
    assert config.load(written(tmp_path, f"retire_after: '{text}'"), {}).retire_after.total_seconds() == seconds


@pytest.mark.parametrize("text", ["3600", "1 fortnight", "-1h", "h", "''"])
def test_a_duration_needs_its_unit(text, tmp_path):
    assert "retire_after" in violations(tmp_path, f"retire_after: {text}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("planes: {data: {type: memory}\n", "is no YAML.*line 2"),
        ("log: {level: info}\nlog: {level: debug}\n", "the key log is given twice at line 2"),
        ("just words", "must be a mapping"),
        ("a: \x00", "is no YAML"),
        ("a: !!python/object/apply:os.system [id]", "is no YAML"),
        ("? [a]\n: b", "a key must be a word at line 1"),
        ("a: 2020-99-99", "a date in it is none"),
        ("a: !!int hidden", "a number or (?!.*hidden)"),
        ("[" * 3000, "nested too deep"),
        ('log: {file: "a\\0b"}', "log.file: a path holds no zero byte"),
        ('state: {directory: "a\\0b"}', "state.directory: a path holds no zero byte"),
        ("retire_after: 99999999999999d", "retire_after: 99999999999999d is longer"),
    ],
)
def test_what_is_no_configuration_is_told_with_its_place(text, said, tmp_path):
    with pytest.raises(InvalidSpec, match=said):
        config.load(written(tmp_path, text), {})


def test_a_secret_in_the_text_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(InvalidSpec) as caught:
        config.load(
            written(tmp_path, "planes: {c: {type: s3, bucket: b, access_key: hunter2, secret_key: {env: S}}}"), {}
        )
    assert "planes.c.access_key" in caught.value.violations
    assert "hunter2" not in caught.value.message + str(caught.value.violations)


SHARED = """
planes:
  data: {type: posix, path: /srv/data}
  nfs: {type: posix, path: /srv/nfs, shared: true}
database: {url: {env: DATABASE}}
replicas: {address: "dns:///cropduster:7300", secret: {file: /run/secret}}
"""


def test_file_servers_that_share_a_database_share_their_planes(tmp_path):
    with pytest.raises(InvalidSpec) as caught:
        config.load(written(tmp_path, SHARED), {})
    assert list(caught.value.violations) == ["planes.data.shared"]
    loaded = config.load(written(tmp_path, SHARED.replace("/srv/data}", "/srv/data, shared: true}")), {})
    assert loaded.database is not None
    assert loaded.database.url.reference == "environment variable DATABASE"
    assert loaded.replicas is not None
    assert loaded.replicas.address == "dns:///cropduster:7300"


GROUPS = """
host_groups:
  rack: {hosts: [n1, n2, n3, n4]}
  half: {host_group: rack, offset: 2}
  mirror: {host_group: rack, count: 3, offset: 1, delta: 1}
  turned: {host_group: mirror, delta: 2}
planes:
  thor: {type: posix, host_group: rack}
  half: {type: posix, host_group: half, default_parts: 8}
  mirror: {type: posix, host_group: mirror}
  turned: {type: posix, host_group: turned}
  two: {type: posix, hosts: [a.example, b-1], category: lz}
database: {url: {env: DATABASE}}
"""


def test_planes_belong_to_hosts_by_name_or_by_group(tmp_path):
    planes = config.load(written(tmp_path, GROUPS), {}).planes
    assert {name: plane.hosts for name, plane in planes.items()} == {
        "thor": ("n1", "n2", "n3", "n4"),
        "half": ("n3", "n4"),
        "mirror": ("n3", "n4", "n2"),  # base[offset + (i + delta) mod count]
        "turned": ("n2", "n3", "n4"),
        "two": ("a.example", "b-1"),
    }
    assert [plane.default_parts for plane in planes.values()] == [4, 8, 3, 3, 2]


@pytest.mark.parametrize(
    ("key", "text", "why"),
    [
        ("planes.x.hosts", "planes: {x: {type: posix, hosts: n1}}", "is a list"),
        ("planes.x.hosts", "planes: {x: {type: posix, hosts: [n1, n1]}}", "named twice"),
        ("planes.x.hosts", "planes: {x: {type: posix, hosts: [n/1]}}", "no name of a host"),
        ("planes.x.path", "planes: {x: {type: posix, hosts: [n1], path: /x}}", "one place is enough"),
        ("planes.x", "planes: {x: {type: posix, hosts: [n1], shared: true}}", "leave shared out"),
        ("planes.x.host_group", "planes: {x: {type: posix, host_group: rack}}", "no host group is called rack"),
        ("host_groups.b", "host_groups: {a: {hosts: [n]}, b: {host_group: a, count: 2}}", "runs past its end"),
        ("host_groups.a", "host_groups: {a: {host_group: a}}", "taken from each other"),
        ("host_groups.a", "host_groups: {a: {hosts: []}}", "name hosts"),
        ("host_groups.a", "host_groups: {a: {hosts: [n], delta: 1}}", "about a host_group"),
    ],
)
def test_hosts_that_make_no_sense_are_told_by_their_key(key, text, why, tmp_path):
    assert why in violations(tmp_path, text)[key]


def test_replicas_need_a_database_and_an_address_that_says_how_it_is_resolved(tmp_path):
    text = "replicas: {address: 'dns:///x:1', secret: {env: S}}\n"
    with pytest.raises(InvalidSpec) as caught:
        config.load(written(tmp_path, text), {})
    assert list(caught.value.violations) == ["replicas"]
    with pytest.raises(InvalidSpec) as caught:
        config.load(written(tmp_path, text.replace("dns:///", "")), {})
    assert list(caught.value.violations) == ["replicas.address"]


def test_digest_follows_the_text_and_the_variables_it_names(tmp_path):
    loaded = config.load(written(tmp_path, FULL), {})
    first = config.digest(loaded, {"AK": "1", "OTHER": "1"})
    assert first == config.digest(loaded, {"AK": "1", "OTHER": "2"})
    assert first != config.digest(loaded, {"AK": "2"})
    assert first != config.digest(loaded, {})
    other = config.load(written(tmp_path, FULL + "# more\n"), {})
    assert first != config.digest(other, {"AK": "1"})


def test_the_configuration_does_not_show_its_text(tmp_path):
    loaded = config.load(written(tmp_path, FULL), os.environ)
    assert "bytes_per_second: 500000000" not in repr(loaded)
