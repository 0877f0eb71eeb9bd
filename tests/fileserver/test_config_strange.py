"""Configurations that nobody would write: each is one clear refusal, or a configuration."""

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fileserver import config
from fileserver.errors import InvalidSpec

WORDS = st.sampled_from(
    [
        "planes",
        "data",
        "type",
        "posix",
        "s3",
        "azure",
        "memory",
        "path",
        "bucket",
        "container",
        "prefix",
        "endpoint",
        "access_key",
        "secret_key",
        "env",
        "file",
        "kubernetes",
        "limits",
        "requests",
        "bytes_per_second",
        "hosts",
        "listen",
        "internal",
        "external",
        "address",
        "tls",
        "cert",
        "key",
        "allow",
        "tokens",
        "issuers",
        "rules",
        "state",
        "directory",
        "log",
        "level",
        "info",
        "format",
        "json",
        "database",
        "url",
        "replicas",
        "hsds",
        "main",
        "default_parts",
        "durability",
        "fsync",
        "category",
        "lz",
        "shared",
        "retire_after",
        "memory",
        "audit",
        "rate",
    ]
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    WORDS,
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(["127.0.0.1:0", "http://x", "1h", "2GiB", "/", "..", "~", "\x00", "a" * 5000]),
)
KEYS = st.one_of(WORDS, st.text(max_size=8), st.integers(), st.none())
TREES = st.recursive(PLAIN, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=5))
NAMED = st.dictionaries(WORDS, TREES, max_size=4)
PLANES = st.dictionaries(WORDS, st.fixed_dictionaries({"type": WORDS}, optional={"path": PLAIN, "limits": TREES}))
calmly = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(tmp_path, monkeypatch, text):
    """What becomes of a file with this in it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    path = tmp_path / "given.yaml"
    path.write_bytes(text)
    try:
        config.load(path, {})
    except InvalidSpec as error:
        refused = error
    else:
        refused = None
    assert refused is None or (refused.violations and str(path) in str(refused))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@calmly
@given(TREES | NAMED | st.fixed_dictionaries({"planes": PLANES}, optional={"listen": TREES, "rules": TREES}))
def test_any_tree_is_read_or_refused(tmp_path, monkeypatch, tree):
    read(tmp_path, monkeypatch, yaml.safe_dump(tree).encode("utf-8", "surrogatepass"))


@calmly
@given(st.binary(max_size=60) | st.text(st.sampled_from("{}[]:&*!|>-'\"%@`,#? \n\tab01~"), max_size=60).map(str.encode))
@example(b"a: &a [*a]")
@example(b"a: &a {b: *a}")
@example(b"\xff\xfea\x00")
@example(b"!!python/object/apply:os.system [true]")
@example(b"a: 1\na: 2")
@example(b"? [a]\n: b")
@example(b"- " * 500)
@example(b"a: &b " + b"[" * 500)
@example(b"a: 9" + b"9" * 6000)
@example(b"a: 0000-99-99")
def test_any_bytes_are_read_or_refused(tmp_path, monkeypatch, text):
    read(tmp_path, monkeypatch, text)


def test_aliases_of_aliases_take_no_memory(tmp_path, monkeypatch):
    levels = "\n".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 10)}]" for n in range(12))
    read(tmp_path, monkeypatch, f"l0: &l0 [x]\n{levels}\nplanes: *l12\n".encode())
