"""Which evidence each pair of planes and each kind of source gives, in every direction, on real stores."""

from __future__ import annotations

import os

import pytest

from tests.doubles import proxy
from tests.doubles.azure_pull import Puller
from tests.e2e.test_azure import container  # noqa: F401 - a fixture

MIB = 2**20
SMALL = 100_000  # copied whole, where anything is
LARGE = 6 * MIB  # S3 copies ranges out of what is larger than 5 MiB only

COMPARED, PINNED = "compared", "pinned"

TABLE = [
    # source, kind of its stored value, target, bytes, level, route of the one part or two
    ("posix", "", "data", SMALL, COMPARED, "copied in the kernel"),
    ("posix", "", "cloud", SMALL, COMPARED, "streamed"),
    ("posix", "", "az", SMALL, COMPARED, "streamed"),
    ("cloud", "CRC64NVME", "data", SMALL, COMPARED, "streamed"),
    ("cloud", "none", "data", SMALL, COMPARED, "streamed"),
    ("cloud", "CRC64NVME", "cloud", SMALL, COMPARED, "copied whole"),
    ("cloud", "CRC64NVME", "cloud", LARGE, COMPARED, "copied in ranges"),
    ("cloud", "CRC32", "cloud", SMALL, COMPARED, "copied whole"),
    ("cloud", "none", "cloud", SMALL, PINNED, "copied whole"),
    ("cloud", "CRC64NVME", "az", SMALL, COMPARED, "pulled"),
    ("cloud", "none", "az", SMALL, PINNED, "pulled"),
    ("cloud", "none", "far", SMALL, COMPARED, "streamed"),
    ("az", "ours", "data", SMALL, COMPARED, "streamed"),
    ("az", "none", "data", SMALL, COMPARED, "streamed"),
    ("az", "ours", "cloud", SMALL, COMPARED, "streamed"),
    ("az", "none", "cloud", SMALL, COMPARED, "streamed"),
    ("az", "ours", "az", SMALL, COMPARED, "copied whole"),
    ("az", "none", "az", SMALL, PINNED, "copied whole"),
]


@pytest.fixture
def planes(machine, container, bucket, seaweed):  # noqa: F811
    """`data` (posix), `cloud` (S3), `az` whose service pulls from `cloud`, and `far` whose service does not."""
    service, name = container.account, container.name
    with proxy.before(service.url) as between:
        between.once(Puller(service), header="x-ms-copy-source", times=10**6)
        url = f"{between.endpoint}/{service.name}"
        az = f"{{type: azure, container: {name}, prefix: in/, account_url: '{url}', account_key: {{env: KEY}}"
        machine.configure(
            "planes:\n"
            f"  data: {{type: posix, path: {machine.folder}/plane}}\n"
            f"  az: {az}, pull_from: ['{seaweed.endpoint}']}}\n"
            f"  far: {az}}}\n"
            f"  cloud: {{type: s3, bucket: {bucket.name}, prefix: in/, endpoint: '{seaweed.endpoint}',"
            " access_key: {env: AK}, secret_key: {env: SK}}\n"
        )
        yield {"cloud": bucket, "az": container}


def place(machine, planes, source: str, kind: str, data: bytes) -> str:
    """Put the source where it belongs, with the stored value that is asked for; how the command line names it."""
    if source == "posix":
        (machine.folder / "x.dat").write_bytes(data)
        return "./x.dat"
    if kind == "ours":
        (machine.folder / "x.dat").write_bytes(data)
        machine("spray", "x.dat", "a::first", "--parts", "1", "--format", "fixed:1")
        machine("despray", "a::first", f"{source}:x.dat")
    else:
        planes[source].put("in/x.dat", data, **({"ChecksumAlgorithm": kind} if kind not in {"", "none"} else {}))
    return f"{source}:x.dat"


@pytest.mark.parametrize(
    ("source", "kind", "target", "size", "level", "route"), TABLE, ids=lambda cell: str(cell).replace(" ", "-")
)
def test_the_evidence_of_a_spray(machine, planes, source, kind, target, size, level, route):
    data = os.urandom(size)
    named = place(machine, planes, source, kind, data)
    cut = ("--parts", "2", "--format", "fixed:1") if size == LARGE else ("--parts", "1", "--no-split")
    done = machine("spray", named, "a::x", "--plane", target, *cut, "--json").json["outcome"]
    assert [taken["route"] for taken in done["routes"]] == [route]
    assert done["evidence"] == level
    assert machine("files", "show", "a::x", "--json").json["evidence"] == level
    again = machine("despray", "a::x", "./again.dat", "--json").json["outcome"]
    assert (again["evidence"], (machine.folder / "again.dat").read_bytes() == data) == (COMPARED, True)
    # What we wrote is catalogued, pinned or not, so it can be compared from here on, wherever it goes.
    copied = machine("copy", "a::x", "a::y", "--json").json["outcome"]
    assert copied["evidence"] == COMPARED


def test_reading_makes_compared_of_pinned(machine, planes):
    planes["az"].put("in/x.dat", os.urandom(SMALL))
    arguments = ("--plane", "az", "--parts", "3", "--format", "fixed:1", "--json")
    assert machine("spray", "az:x.dat", "a::x", *arguments).json["outcome"]["evidence"] == PINNED
    read = machine("spray", "az:x.dat", "a::y", *arguments, "--verify", "read").json
    assert read["outcome"]["evidence"] == COMPARED
    assert read["progress"]["bytes_checked"] >= 2 * SMALL


@pytest.mark.parametrize("plane", ["cloud", "az", "data"])
def test_a_re_spray_is_compared_by_the_values_of_our_own_parts(machine, planes, plane):
    del planes
    (machine.folder / "x.dat").write_bytes(data := os.urandom(12 * MIB if plane == "cloud" else SMALL))
    machine("spray", "x.dat", "a::x", "--plane", plane, "--parts", "2", "--format", "fixed:1")
    for parts in ("1", "3"):
        done = machine("copy", "a::x", f"a::y{parts}", "--parts", parts, "--json").json["outcome"]
        assert done["evidence"] == COMPARED
    machine("despray", "a::y3", "./again.dat")
    assert (machine.folder / "again.dat").read_bytes() == data


def test_one_source_without_a_value_makes_the_whole_pinned(machine, planes):
    planes["cloud"].put("in/1", os.urandom(SMALL), ChecksumAlgorithm="CRC64NVME")
    planes["cloud"].put("in/2", os.urandom(SMALL))
    sources = ("cloud:1", "cloud:2", "a::x", "--plane", "cloud", "--no-split", "--parts", "2", "--json")
    assert machine("spray", *sources).json["outcome"]["evidence"] == PINNED
