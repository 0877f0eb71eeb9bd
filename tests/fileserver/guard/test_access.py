"""What each call needs, and that none is let through which a rule does not allow."""

from pathlib import Path

import pytest
from google.protobuf import json_format

import fileserver.v1
from fileserver import auth
from fileserver.auth import Caller
from fileserver.callers import RuleSettings
from fileserver.calls import Call
from fileserver.errors import CallerDenied, InvalidSpec, TransferNotFound
from fileserver.guard.access import Access, Place
from fileserver.guard.needs import EVERYWHERE, OUTSIDE, Held, Need, literal
from fileserver.rules import Rules
from fileserver.services.data import SERVICE as DATA
from fileserver.v1 import (
    agent_pb2,
    data_pb2,
    domain_pb2,
    exchange_pb2,
    file_pb2,
    hdf5_pb2,
    landing_pb2,
    part_pb2,
    plane_pb2,
    transfer_pb2,
)

FILES = (
    agent_pb2,
    data_pb2,
    domain_pb2,
    exchange_pb2,
    file_pb2,
    hdf5_pb2,
    landing_pb2,
    part_pb2,
    plane_pb2,
    transfer_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in FILES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
NEVER = {"/fileserver.v1.PartService/", f"/{DATA}/"}


def test_every_call_of_every_service_is_in_the_table_and_nothing_else():
    made = {path.name.removesuffix(".py") for path in Path(fileserver.v1.__path__[0]).glob("*_pb2.py")}
    assert made == {module.__name__.rpartition(".")[2] for module in FILES}, "a proto file is new: name it here"
    assert set(EVERYWHERE) == set(METHODS)


def test_work_on_parts_and_raw_bytes_are_for_nobody_outside():
    inside = {method for method in METHODS if any(method.startswith(service) for service in NEVER)}
    assert set(OUTSIDE) == set(METHODS) - inside
    assert len(inside) == 7


BY_GRANT = {method for method in METHODS if method.startswith(f"/{DATA}/")}
"""Of which its service outside of the house asks for a grant (`tests/fileserver/agents/test_granted.py`)."""


class Server:
    default_plane = "data"

    async def owner(self, transfer):
        if transfer == "gone":
            raise TransferNotFound(transfer)
        return {"mine": "alice", "theirs": "bob", "internal": ""}[transfer]

    async def place(self, watch):
        assert watch == "w"
        return Place("lz", "in/", "hdf5://home/alice")


def request_of(method, fields):
    kind = METHODS[f"/fileserver.v1.{method}"].input_type
    return json_format.ParseDict(fields, kind._concrete_class())


async def asked(method, fields, *rules, name="alice", groups=()):
    """Whether alice's request gets through; raises what it is answered."""
    made = Rules([RuleSettings.model_validate(each).rule() for each in rules])
    auth.set_caller(Caller(local=False, name=name, rights=made.of(name, groups), outside=True))
    call = Call(f"/fileserver.v1.{method}", False, None, request_of(method, fields))
    try:
        async with Access(Server()).around(call):
            return True
    finally:
        auth.set_caller(auth._STRANGER)


ALL = {"who": ["*"], "may": ["read", "write", "delete"], "planes": ["*"], "files": ["*"], "domains": ["*"]}


def may(*verbs, **things):
    return {"who": ["alice"], "may": list(verbs), **{kind: [name] for kind, name in things.items()}}


SPRAY = {"sources": [{"plane": "lz", "key": "in/a.csv"}], "file": "Sales::X", "parts": 2}
SYNC = {"source": {"plane": "lz", "key": "in"}, "target": {"plane": "cloud", "key": "copy"}}
INGEST = {"sources": [{"plane": "lz", "key": "in/*.h5"}], "domain": "hdf5://home/alice/all/"}
WATCH = {"source": {"plane": "lz", "key": "in"}, "load": {"folder": "hdf5://home/alice/in"}}
READS_IN, WRITES_X = may("read", planes="lz:in/"), may("write", files="sales::*")
HOME = may("read", "write", "delete", domains="hdf5://home/alice/")

# What each call needs, all of it: without any one of these rules it is refused.
NEEDS = {
    "TransferService/CreateTransfer": [
        ({"spec": {"spray": SPRAY}}, [READS_IN, WRITES_X, may("write", planes="data:sales/x/")]),
        ({"spec": {"spray": {**SPRAY, "plane": "cloud"}}}, [READS_IN, WRITES_X, may("write", planes="cloud:sales/")]),
        (
            {"spec": {"spray": {**SPRAY, "sources": [*SPRAY["sources"], {"plane": "cloud", "key": "b"}]}}},
            [READS_IN, may("read", planes="cloud:b"), WRITES_X, may("write", planes="data")],
        ),
        (
            {"spec": {"despray": {"file": "sales::x", "target": {"plane": "lz", "key": "out/x"}}}},
            [may("read", files="sales::x"), may("write", planes="lz:out/")],
        ),
        (
            {"spec": {"despray": {"sources": SPRAY["sources"], "target": {"plane": "cloud", "key": "out/x"}}}},
            [READS_IN, may("write", planes="cloud:out/")],
        ),
        (
            {"spec": {"copy": {"file": "sales::x", "new_file": "mine::x", "plane": "cloud"}}},
            [may("read", files="sales::x"), may("write", files="mine::*"), may("write", planes="cloud:mine/")],
        ),
        (
            {"spec": {"replicate": {"file": "sales::x", "plane": "cloud"}}},
            [may("read", files="sales::x"), WRITES_X, may("write", planes="cloud:sales/x/")],
        ),
        (
            {"spec": {"sync": SYNC}},
            [READS_IN, may("read", planes="cloud:copy/"), may("write", planes="cloud:copy/")],
        ),
        (
            {"spec": {"sync": {**SYNC, "delete": True, "names": {"plane": "lz", "key": "list"}}}},
            [
                READS_IN,
                may("read", "write", planes="cloud:copy/"),
                may("delete", planes="cloud:copy/"),
                may("read", planes="lz:list"),
            ],
        ),
        ({"spec": {"ingest": INGEST}}, [READS_IN, may("write", domains="hdf5://home/alice/all/")]),
    ],
    "TransferService/PlanSync": [({"spec": {"sync": SYNC}}, [READS_IN, may("read", "write", planes="cloud:copy")])],
    "FileService/GetFile": [({"name": "Sales::x"}, [may("read", files="sales::x")])],
    "FileService/RegisterFile": [
        ({"name": "sales::x", "parts": [{"plane": "lz", "key": "in/a"}]}, [READS_IN, WRITES_X])
    ],
    "FileService/RenameFile": [
        (
            {"name": "sales::x", "new_name": "mine::x"},
            [may("read", files="sales"), may("delete", files="sales"), may("write", files="mine")],
        )
    ],
    "FileService/DeleteFile": [
        ({"name": "sales::x"}, [may("delete", files="sales")]),
        ({"name": "sales::x", "with_parts": True}, [may("delete", files="sales"), may("admin")]),
    ],
    "FileService/VerifyFile": [({"name": "sales::x"}, [may("read", files="sales")])],
    "FileService/RebuildFiles": [({"plane": "data"}, [may("admin")])],
    "PlaneService/GetPlane": [({"name": "lz"}, [READS_IN])],
    "PlaneService/CheckPlane": [({"name": "lz"}, [may("admin")])],
    "PlaneService/UpdateLimits": [({"name": "lz"}, [may("admin")])],
    "PlaneService/SweepPlane": [({"name": "lz"}, [may("admin")])],
    "PlaneService/ListObjects": [({"plane": "lz", "prefix": "in/"}, [READS_IN])],
    "DomainService/GetDomain": [({"domain": "hdf5://home/alice/x"}, [HOME])],
    "DomainService/ListDomains": [
        ({"folder": "hdf5://home/alice"}, [HOME]),
        ({"folder": "hdf5://"}, [may("read", domains="*")]),
    ],
    "DomainService/CreateFolder": [({"folder": "hdf5://home/alice/x"}, [HOME])],
    "DomainService/MoveDomain": [
        (
            {"domain": "hdf5://home/alice/x", "new_domain": "hdf5://home/alice/y"},
            [may("read", "delete", domains="hdf5://home/alice/x"), may("write", domains="hdf5://home/alice/y")],
        )
    ],
    "DomainService/DeleteDomain": [
        ({"domain": "hdf5://home/alice/x"}, [may("delete", domains="hdf5://home/alice/x")]),
        ({"domain": "hdf5://home/alice/x", "recursive": True}, [may("delete", domains="hdf5://home/alice/x")]),
    ],
    "DomainService/GetAcl": [({"domain": "hdf5://home/alice/x"}, [HOME])],
    "DomainService/UpdateAcl": [({"domain": "hdf5://home/alice/x"}, [HOME, may("admin")])],
    "Hdf5Service/InspectFile": [({"source": {"plane": "lz", "key": "in/a"}}, [READS_IN])],
    "Hdf5Service/ListChunks": [({"source": {"plane": "lz", "key": "in/a"}}, [READS_IN])],
    "Hdf5Service/PlanIngest": [({"spec": {"ingest": INGEST}}, [READS_IN, HOME])],
    "ExchangeService/CompareDomain": [
        ({"source": {"plane": "lz", "key": "in/a"}, "domain": "hdf5://home/alice/x"}, [READS_IN, HOME])
    ],
    "ExchangeService/ExportDomain": [
        (
            {"file": {"plane": "lz", "key": "out/a"}, "domain": "hdf5://home/alice/x"},
            [HOME, may("write", planes="lz:out")],
        )
    ],
    "ExchangeService/CopyDomain": [
        (
            {"domain": "hdf5://home/alice/x", "new_domain": "hdf5://home/bob/x"},
            [may("read", domains="hdf5://home/alice"), may("write", domains="hdf5://home/bob")],
        )
    ],
    "ExchangeService/RelinkDomain": [({"domain": "hdf5://home/alice/x"}, [HOME, may("admin")])],
    "LandingService/CreateWatch": [
        ({"watch": WATCH}, [READS_IN, may("write", domains="hdf5://home/alice/in/"), may("admin")])
    ],
    "LandingService/GetWatch": [({"name": "watches/w"}, [READS_IN])],
    "LandingService/StopWatch": [({"name": "w"}, [READS_IN, HOME])],
    "LandingService/DeleteWatch": [({"name": "w"}, [READS_IN, HOME])],
    "LandingService/GetArrival": [({"watch": "w", "key": "x"}, [READS_IN])],
    "LandingService/ListArrivals": [({"watch": "w"}, [READS_IN])],
    "LandingService/RetryArrivals": [({"watch": "w"}, [READS_IN, HOME])],
    "LandingService/ResetArrivals": [({"watch": "w"}, [READS_IN, HOME])],
    "LandingService/MirrorArrivals": [({"watch": "w", "domain": "hdf5://home/alice/t"}, [READS_IN, HOME])],
}
LISTS = {
    "AgentService/Work",
    "TransferService/ListTransfers",
    "FileService/ListFiles",
    "PlaneService/ListPlanes",
    "LandingService/ListWatches",
}
OWN = {f"TransferService/{verb}Transfer" for verb in ("Get", "Watch", "Cancel", "Pause", "Resume")}
OWN |= {"Hdf5Service/ReportIngest", "TransferService/ListSegments"}


def test_there_is_a_test_of_every_call():
    assert {f"/fileserver.v1.{method}" for method in (*NEEDS, *LISTS, *OWN)} == set(OUTSIDE)


@pytest.mark.parametrize(("method", "fields", "rules"), [(m, *row) for m, rows in NEEDS.items() for row in rows])
async def test_a_call_needs_every_one_of_its_rights_and_no_more(method, fields, rules):
    assert await asked(method, fields, *rules)
    for number, missing in enumerate(rules):
        for verb in missing["may"]:
            fewer = [rule for i, rule in enumerate(rules) if i != number]
            rest = [each for each in missing["may"] if each != verb]
            if rest:
                fewer.append({**missing, "may": rest})
            if rules == [HOME] or (HOME in rules and missing is HOME):
                continue  # more than needed, for brevity; without any of it is below
            with pytest.raises(CallerDenied) as caught:
                await asked(method, fields, *fewer)
            assert "alice may not" in caught.value.message
            assert f"may: [{verb}]" in caught.value.message
    with pytest.raises(CallerDenied):
        await asked(method, fields)
    with pytest.raises(CallerDenied):
        await asked(method, fields, *rules, name="bob")


@pytest.mark.parametrize("method", sorted(LISTS))
async def test_a_list_has_only_what_its_caller_may_see_so_anybody_may_ask(method):
    assert await asked(method, {})


@pytest.mark.parametrize("method", sorted(OWN))
async def test_a_transfer_is_its_callers_and_the_administrators(method):
    assert await asked(method, {"name": "transfers/mine"})
    assert await asked(method, {"name": "theirs"}, may("admin"))
    for other in ("theirs", "internal"):
        with pytest.raises(CallerDenied, match="somebody else began"):
            await asked(method, {"name": other}, ALL)
    with pytest.raises(TransferNotFound):
        await asked(method, {"name": "gone"}, ALL)


@pytest.mark.parametrize("method", sorted(set(EVERYWHERE) - set(OUTSIDE) - BY_GRANT))
async def test_what_is_internal_is_refused_whatever_the_rules_say(method):
    with pytest.raises(CallerDenied, match="not for callers from outside"):
        await asked(method.removeprefix("/fileserver.v1."), {}, ALL, may("admin"))


async def test_a_call_that_the_table_does_not_know_is_refused():
    auth.set_caller(Caller(local=False, name="alice"))
    with pytest.raises(CallerDenied):
        async with Access(Server()).around(Call("/fileserver.v1.New/Verb", False, None, object())):
            pass


HOSTILE = [
    ("lz", "in/../secret"),
    ("lz", "in/./../secret"),
    ("lz", "../lz/in/x"),
    ("lz", "/in/x"),
    ("lz", "in"),
    ("lz", "inx"),
    ("lz", "*"),
    ("lz", "i*/x"),
    ("lz", "in*"),
    ("lz", "[i]n/x"),
    ("lz", "in%2f..%2fx/../../y"),
    ("lz", "in\0/x"),
    ("lz", "\u0456n/x"),
    ("LZ", "in/x"),
    ("cloud", "in/x"),
]


@pytest.mark.parametrize(("plane", "key"), HOSTILE)
async def test_no_spelling_of_a_source_leads_out_of_its_folder(plane, key):
    rules = (READS_IN, WRITES_X, may("write", planes="data"))
    for fields in (
        {"spec": {"spray": {**SPRAY, "sources": [{"plane": plane, "key": key}]}}},
        {"spec": {"spray": {**SPRAY, "sources": [*SPRAY["sources"], {"plane": plane, "key": key}]}}},
    ):
        with pytest.raises((CallerDenied, InvalidSpec)):
            await asked("TransferService/CreateTransfer", fields, *rules)


@pytest.mark.parametrize("key", ["in/*", "in/a/*.csv", "in/?", "in/[a"])
async def test_wildcards_inside_the_folder_are_free(key):
    fields = {"spec": {"spray": {**SPRAY, "sources": [{"plane": "lz", "key": key}]}}}
    assert await asked("TransferService/CreateTransfer", fields, READS_IN, WRITES_X, may("write", planes="data"))


@pytest.mark.parametrize(("place", "key"), [("lz:in", "in*"), ("lz:in/a", "in/a*"), ("lz:in/a.csv", "in/?.csv")])
async def test_a_wildcard_is_more_than_the_name_that_it_begins_with(place, key):
    fields = {"spec": {"spray": {**SPRAY, "sources": [{"plane": "lz", "key": key}]}}}
    with pytest.raises(CallerDenied, match="read"):
        await asked(
            "TransferService/CreateTransfer", fields, may("read", planes=place), WRITES_X, may("write", planes="data")
        )


@pytest.mark.parametrize("name", ["sales:: x", " SALES ::x", "sales::x::y"])
async def test_logical_names_are_compared_as_they_will_be_understood(name):
    assert await asked("FileService/GetFile", {"name": name}, may("read", files="sales::*"))


@pytest.mark.parametrize("name", ["salesx::x", "x::sales::x", "sales", "s\u0430les::x", "sales::~x", "sales::\x1b"])
async def test_other_logical_names_are_not(name):
    with pytest.raises((CallerDenied, InvalidSpec)):
        await asked("FileService/GetFile", {"name": name}, may("read", files="sales::*"))


LOCAL = [
    (
        "TransferService/CreateTransfer",
        {"spec": {"spray": {**SPRAY, "sources": [{"plane": "local", "key": "/etc/passwd"}]}}},
    ),
    (
        "TransferService/CreateTransfer",
        {"spec": {"despray": {"file": "a::x", "target": {"plane": "local", "key": "/tmp/x"}}}},
    ),
    ("TransferService/CreateTransfer", {"spec": {"sync": {**SYNC, "target": {"plane": "local", "key": "/tmp"}}}}),
    ("TransferService/CreateTransfer", {"spec": {"sync": {**SYNC, "names": {"plane": "local", "key": "/tmp/n"}}}}),
    ("TransferService/CreateTransfer", {"spec": {"ingest": {**INGEST, "sources": [{"plane": "local", "key": "/x"}]}}}),
]


@pytest.mark.parametrize(("method", "fields"), LOCAL)
async def test_files_of_the_servers_machine_are_not_within_reach_with_any_rule(method, fields):
    with pytest.raises(CallerDenied, match="cannot see files of this machine"):
        await asked(method, fields, ALL, may("admin"))


@pytest.mark.parametrize(
    "fields",
    [
        {"spec": {"despray": {"file": "a::x", "target": {"plane": "data", "key": "sales/x/~abc/x._1_of_2"}}}},
        {"spec": {"sync": {**SYNC, "target": {"plane": "data", "key": "sales/x/~abc"}}}},
    ],
)
async def test_nobody_writes_among_the_parts_of_a_logical_file(fields):
    with pytest.raises(CallerDenied, match="parts of a logical file"):
        await asked("TransferService/CreateTransfer", fields, ALL)


async def test_a_copy_from_outside_says_where_it_lies():
    with pytest.raises(InvalidSpec, match="--plane"):
        await asked("TransferService/CreateTransfer", {"spec": {"copy": {"file": "a", "new_file": "b"}}}, ALL)


async def test_a_landing_zone_may_be_for_leaving_only():
    drop = may("write", planes="lz:in/")
    target = {"file": "a::x", "target": {"plane": "lz", "key": "in/x"}}
    assert await asked("TransferService/CreateTransfer", {"spec": {"despray": target}}, drop, may("read", files="a::x"))
    for fields in ({"plane": "lz", "prefix": "in/"}, {"plane": "lz"}):
        with pytest.raises(CallerDenied, match="read"):
            await asked("PlaneService/ListObjects", fields, drop)


def test_what_a_denial_says_is_a_rule_that_would_allow_it():
    (want,) = list(
        OUTSIDE["/fileserver.v1.PlaneService/ListObjects"](plane_pb2.ListObjectsRequest(plane="a", prefix="b/"), "")
    )
    assert isinstance(want, Need)
    rule = RuleSettings.model_validate({"who": ["x"], "may": [want.verb], "planes": [want.thing.shown]}).rule()
    assert Rules([rule]).of("x", []).allow(want.verb, want.thing)


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        ("a/b*c", ("a/b", True)),
        ("a", ("a", False)),
        ("?", ("", True)),
        ("a*/[b]", ("a*/[b]", False)),
        ("[b]*", ("", True)),
    ],
)
def test_a_wildcard_is_known_as_far_as_it_is_plain(key, plain):
    assert literal(key) == plain


def test_a_watch_is_asked_for_what_it_is_about():
    row = OUTSIDE["/fileserver.v1.LandingService/StopWatch"]
    assert {
        each.verb for each in row(landing_pb2.StopWatchRequest(name="watches/w"), "") if isinstance(each, Held)
    } == {
        "read",
        "write",
    }
