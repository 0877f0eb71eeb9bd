"""What an HSDS is configured with: checked whole, its secrets named and never shown."""

import pytest

from fileserver import config
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds.targets import Targets

PLANES = "planes: {data: {type: posix, path: /tmp/data}, bucket: {type: posix, path: /tmp/bucket}}\n"


def load(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return config.load(path, {}, tmp_path / "state")


def test_a_server_with_all_that_it_may_have(tmp_path):
    loaded = load(
        tmp_path,
        PLANES + "hsds:\n"
        "  main: {endpoint: 'http+unix://%2Frun%2Fhs%2Fsn_1.sock', username: admin, password: {env: HS_PASSWORD},"
        " bucket: hsdstest, storage: bucket, limits: {requests: 4}, timeout: 30}\n"
        "  other: {endpoint: 'https://hsds.example.org', token: {file: /run/token}}\n",
    )
    main, other = loaded.hsds["main"], loaded.hsds["other"]
    assert str(main.socket) == "/run/hs/sn_1.sock"
    assert (main.username, main.bucket, main.storage, main.limits.requests, main.timeout) == (
        "admin",
        "hsdstest",
        "bucket",
        4,
        30.0,
    )
    assert other.socket is None
    assert (other.user, other.limits.requests) == ("the owner of the token", 8)
    targets = Targets(loaded.hsds)
    assert (targets.name(""), targets.name("other")) == ("main", "other")
    with pytest.raises(InvalidSpec, match="no HSDS is called mian; the configuration has main, other"):
        targets.connection("mian")


def test_without_one_who_asks_for_it_is_told_where_it_goes(tmp_path):
    with pytest.raises(InvalidSpec, match="name one under `hsds`"):
        Targets(load(tmp_path, PLANES).hsds).connection()


def test_every_mistake_is_told_at_once_by_the_path_of_its_key(tmp_path):
    wrong = {
        "a": "{endpoint: 'ftp://x'}",
        "b": "{endpoint: 'http://me:hunter2@x'}",
        "c": "{endpoint: 'http://x', password: hunter2, username: me}",
        "d": "{endpoint: 'http://x', username: me}",
        "e": "{endpoint: 'http://x', storage: buckt}",
        "f": "{endpoint: 'http://x', endpont: y}",
        "g": "{endpoint: 'http+unix://run/x'}",
        "h": "{endpoint: 'http://x', token: {env: T}, username: me, password: {env: P}}",
        "i": "{}",
        "j": "5",
        "k": "{endpoint: 'http://x/hsds?a=b'}",
        "l": "{endpoint: 'http://x', bucket: 'a/b'}",
        "m": "{endpoint: 'http://x:99999'}",
        "N": "{endpoint: 'http://x'}",
    }
    with pytest.raises(InvalidSpec) as refused:
        load(tmp_path, PLANES + "hsds:\n" + "".join(f"  {name}: {text}\n" for name, text in wrong.items()))
    found = refused.value.violations
    paths = "a.endpoint b.endpoint c.password d e.storage f.endpont g.endpoint h i.endpoint j k.endpoint l.bucket"
    assert set(found) == {f"hsds.{path}" for path in [*paths.split(), "m.endpoint", "N"]}
    assert "did you mean bucket?" in found["hsds.e.storage"]
    assert "did you mean endpoint?" in found["hsds.f.endpont"]
    assert "hunter2" not in f"{refused.value.message} {found}"


def test_no_servers_under_the_key_is_a_mistake(tmp_path):
    for text in ("hsds: []\n", "hsds: {}\n"):
        with pytest.raises(InvalidSpec, match="name at least one server"):
            load(tmp_path, PLANES + text)
