"""A server with two guarded addresses, called through the command line: certificates inside, tokens outside."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fileserver.errors import ServerBusy
from fileserver.status import from_call
from fileserver.v1 import data_pb2, data_pb2_grpc, part_pb2, part_pb2_grpc, plane_pb2, plane_pb2_grpc
from tests.doubles.authority import Authority, Trust
from tests.doubles.seaweedfs import free_ports
from tests.e2e.conftest import Machine
from tests.e2e.preloaded import Background

DENIED, INVALID, EXISTS = 3, 2, 5
ROWS = "id,name\n" + "".join(f"{number},row {number}\n" for number in range(2000))


@dataclass
class Site:
    """A server, its two addresses, and who may call it."""

    machine: Machine
    authority: Authority
    ops: Trust
    server: Background
    internal: str
    external: str
    metrics: int
    """A port that tells numbers in the clear."""

    def outside(self, who: str, *words: str, code: int | None = 0) -> Any:
        """A command of somebody with a token."""
        shown = ("--ca", str(self.authority.ca), "--token-file", str(self.machine.folder / f"{who}.token"))
        return self.machine(*words, "--server", self.external, *shown, code=code)

    def inside(self, *words: str, code: int | None = 0) -> Any:
        """A command of somebody with a certificate."""
        shown = ("--ca", self.authority.ca, "--cert", self.ops.certificate, "--key", self.ops.key)
        return self.machine(*words, "--server", self.internal, *map(str, shown), code=code)

    def channel(self) -> grpc.Channel:
        """To the external address, for those who know gRPC."""
        return grpc.secure_channel(self.external, grpc.ssl_channel_credentials(self.authority.ca.read_bytes()))

    def token(self, who: str) -> str:
        return (self.machine.folder / f"{who}.token").read_text().strip()

    def shown(self, who: str) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token(who)}")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("guarded")
    machine = Machine(folder)
    authority = Authority(folder / "pki")
    own = authority.issue("server", names=["localhost"], addresses=["127.0.0.1"])
    made = machine("token", "key", "signing")
    for who, more in {"alice": ["--group", "analysts"], "bob": [], "root": [], "late": ["--lifetime", "1s"]}.items():
        (folder / f"{who}.token").write_text(machine("token", "create", "signing", "--subject", who, *more).out)
    (metrics,) = free_ports(1)
    for place in ("lz/in", "lz/out", "data"):
        (folder / place).mkdir(parents=True)
    (folder / "lz/in/rows.csv").write_text(ROWS)
    (folder / "lz/out/secret.csv").write_text(ROWS)
    machine.configure(
        "planes:\n"
        f"  data: {{type: posix, path: {folder}/data}}\n"
        f"  lz: {{type: posix, path: {folder}/lz, category: lz}}\n"
        f"  hidden: {{type: memory}}\n"
        "listen:\n"
        f"  internal: {{address: '127.0.0.1:0', allow: [ops],"
        f" tls: {{certificate: {own.certificate}, key: {own.key}, clients: {authority.ca}}}}}\n"
        f"  external: {{address: '127.0.0.1:0', tls: {{certificate: {own.certificate}, key: {own.key}}}}}\n"
        f"{made.out}"
        "  leeway: 0s\n"
        f"audit: {{file: {folder}/audit.log}}\n"
        f"metrics: {{listen: '127.0.0.1:{metrics}'}}\n"
        f"log: {{file: {folder}/server.log, level: debug}}\n"
        "rate: {per_second: 5, burst: 100}\n"
        "rules:\n"
        "  - {who: ['group:analysts'], may: [read], planes: ['lz:in/']}\n"
        "  - {who: ['group:analysts'], may: [read, write], planes: ['data:sales/'], files: ['sales::*']}\n"
        "  - {who: [bob], may: [write], planes: ['lz:in/'], files: ['bob::*']}\n"
        "  - {who: [root], may: [admin, read], planes: ['*'], files: ['*']}\n"
    )
    server = machine.start("serve", "--state", str(machine.state))
    assert server.stdout is not None
    line = server.stdout.readline()
    assert "listening" in line, server.communicate()
    _, internal, external = line.split("listening on ")[1].strip().split(" and ")
    try:
        yield Site(machine, authority, authority.issue("ops"), server, internal, external, metrics)
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()


@pytest.fixture(scope="module")
def sprayed(site: Site) -> str:
    """A logical file of alice's."""
    done = site.outside("alice", "spray", "lz:in/rows.csv", "Sales::Rows", "--parts", "2", "--plane", "data", "--json")
    return str(done.json["name"])


def test_a_caller_with_a_token_does_what_rules_allow_and_sees_no_more(site: Site, sprayed: str) -> None:
    shown = site.outside("alice", "files", "list", "--json").json
    assert [each["name"] for each in shown["files"]] == ["sales::rows"]
    planes = site.outside("alice", "planes", "list", "--json").json["planes"]
    assert [(each["name"], each["location"]) for each in planes] == [("data", ""), ("lz", "")]
    assert [each["key"] for each in site.outside("alice", "planes", "objects", "lz:in/", "--json").json["objects"]] == [
        "in/rows.csv"
    ]
    parts = site.outside("alice", "files", "show", "sales::rows", "--uris", "--json").json["parts"]
    assert [part.get("uri") for part in parts] == [None, None]  # no path of the server's machine
    assert "internal address" in site.outside("alice", "head", "sales::rows", "--json", code=7).error["message"]
    assert site.outside("bob", "files", "list", "--json").json["files"] == []
    assert [each["name"] for each in site.outside("root", "files", "list", "--json").json["files"]] == ["sales::rows"]


@pytest.mark.parametrize(
    ("who", "words", "said"),
    [
        ("alice", ["spray", "lz:out/secret.csv", "sales::stolen", "--plane", "data"], "may not read lz:out/secret.csv"),
        (
            "alice",
            ["spray", "lz:in/*", "lz:*", "sales::all", "--plane", "data", "--format", "csv"],
            "may not read lz:*",
        ),
        ("bob", ["files", "show", "sales::rows"], "may not read sales::rows"),
        ("bob", ["planes", "limits", "lz", "--requests", "1"], "may: [admin]"),
        ("alice", ["ingest", "./here.h5", "hdf5://home/x"], "cannot see files of this machine"),
    ],
)
def test_what_no_rule_allows_is_denied_with_the_rule_that_would(
    site: Site, sprayed: str, who: str, words: list[str], said: str
) -> None:
    refused = site.outside(who, *words, "--json", code=DENIED)
    assert said in refused.error["message"]
    assert refused.error["reason"] == "CALLER_DENIED"


def test_a_transfer_is_its_callers_and_the_administrators(site: Site, sprayed: str) -> None:
    assert site.outside("alice", "transfers", "show", sprayed, "--json").json["state"] == "SUCCEEDED"
    for verb in ("show", "cancel", "pause"):
        assert (
            "somebody else" in site.outside("bob", "transfers", verb, sprayed, "--json", code=DENIED).error["message"]
        )
    assert site.outside("bob", "transfers", "list", "--json").json["transfers"] == []
    assert len(site.outside("root", "transfers", "list", "--json").json["transfers"]) == 1


def test_a_certificate_opens_the_internal_address_and_nothing_else_does(site: Site, sprayed: str) -> None:
    assert site.inside("files", "list", "--json").json["files"]
    ca = str(site.authority.ca)
    refused = site.machine("files", "list", "--server", site.internal, "--ca", ca, "--json", code=INVALID)
    assert "--cert and --key" in refused.error["message"]
    stranger = site.authority.issue("stranger")
    shown = ["--cert", str(stranger.certificate), "--key", str(stranger.key)]
    refused = site.machine("files", "list", "--server", site.internal, "--ca", ca, *shown, "--json", code=DENIED)
    assert "listen.internal.allow" in refused.error["message"]
    token = ["--token-file", str(site.machine.folder / "root.token")]
    site.machine("files", "list", "--server", site.internal, "--ca", ca, *token, code=INVALID)


def test_a_token_is_asked_for_outside_and_has_to_count(site: Site) -> None:
    ca = ["--server", site.external, "--ca", str(site.authority.ca), "--json"]
    refused = site.machine("files", "list", *ca, code=DENIED)
    assert "--token-file" in refused.error["message"]
    assert "cookie" not in refused.error["metadata"]
    assert "expired" in site.outside("late", "files", "list", "--json", code=DENIED).error["message"]
    (site.machine.folder / "forged.token").write_text(site.token("alice")[:-8] + "AAAAAAAA")
    refused = site.outside("forged", "files", "list", "--json", code=DENIED)
    assert "the token is not taken" in refused.error["message"]
    (site.machine.folder / "odd.token").write_text("not\na token")
    assert "holds no token" in site.outside("odd", "files", "list", "--json", code=INVALID).error["message"]


def test_nothing_is_sent_in_the_clear_to_the_encrypted_address(site: Site) -> None:
    token = ["--token-file", str(site.machine.folder / "alice.token")]
    refused = site.machine("files", "list", "--server", "192.0.2.1:7300", *token, "--json", code=INVALID)
    assert "nothing is sent there in the clear" in refused.error["message"]
    other = Authority(site.machine.folder / "theirs")
    refused = site.machine(
        "files", "list", "--server", site.external, "--ca", str(other.ca), *token, "--json", code=INVALID
    )
    assert "not believed to be who it says" in refused.error["message"]


def test_files_of_a_callers_machine_are_carried_under_the_rules_about_the_caller(site: Site) -> None:
    here = site.machine.folder / "mine.csv"
    here.write_text(ROWS)
    done = site.outside("alice", "push", str(here), "sales::mine", "--plane", "data", "--parts", "2")
    assert "2 parts streamed" in done.out
    back = site.machine.folder / "back.csv"
    site.outside("alice", "despray", "sales::mine", str(back))  # the server says that it does not see that
    assert back.read_text() == ROWS
    refused = site.outside("alice", "push", str(here), "hr::mine", "--plane", "data", "--json", code=DENIED)
    assert refused.error["reason"] == "CALLER_DENIED"
    refused = site.outside("bob", "fetch", "sales::mine", str(site.machine.folder / "bobs"), "--json", code=DENIED)
    assert refused.error["reason"] == "CALLER_DENIED"
    assert not (site.machine.folder / "bobs").exists()
    lines = (site.machine.folder / "audit.log").read_text()
    assert "AgentService/Work" in lines
    assert "cropduster-grant" not in lines + (site.machine.folder / "server.log").read_text()


def test_internal_services_reflection_and_large_messages_are_not_for_outside(site: Site) -> None:
    with site.channel() as channel:
        shown = site.shown("root")
        calls = [
            lambda: list(part_pb2_grpc.PartServiceStub(channel).Pull(part_pb2.PullRequest(), metadata=shown)),
            lambda: list(data_pb2_grpc.DataServiceStub(channel).Read(data_pb2.ReadRequest(), metadata=shown)),
            lambda: data_pb2_grpc.DataServiceStub(channel).QueryWrite(data_pb2.QueryWriteRequest(), metadata=shown),
            lambda: list(
                reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                    iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=shown
                )
            ),
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        large = plane_pb2.ListObjectsRequest(plane="lz", prefix="x" * (17 << 20))
        for packed in (None, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as caught:
                plane_pb2_grpc.PlaneServiceStub(channel).ListObjects(large, metadata=shown, compression=packed)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_whoever_connects_and_says_nothing_or_little_is_in_nobodys_way(site: Site) -> None:
    host, _, port = site.external.rpartition(":")
    with contextlib.ExitStack() as stack:
        for number in range(300):
            plain = stack.enter_context(socket.create_connection((host, int(port))))
            plain.sendall(b"\x16\x03\x01"[: number % 4])  # a TLS handshake that never goes on
        trusting = ssl.create_default_context(cafile=str(site.authority.ca))
        trusting.set_alpn_protocols(["h2"])
        for number in range(30):
            bare = stack.enter_context(socket.create_connection((host, int(port))))
            secure = stack.enter_context(trusting.wrap_socket(bare, server_hostname="localhost"))
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[:number])
        assert site.outside("alice", "files", "list", "--json").json["files"]


def test_who_calls_too_often_is_told_to_wait_and_nobody_else_is(site: Site) -> None:
    with site.channel() as channel:
        stub, request = plane_pb2_grpc.PlaneServiceStub(channel), plane_pb2.ListPlanesRequest()
        with pytest.raises(grpc.RpcError) as caught:
            any(stub.ListPlanes(request, metadata=site.shown("bob")) is None for _ in range(1000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(from_call(caught.value), ServerBusy)
        assert stub.ListPlanes(request, metadata=site.shown("alice")).planes


def test_every_call_has_left_a_line_and_no_secret_is_anywhere(site: Site, sprayed: str) -> None:
    hostile = "sales::\x1b]0;owned\x07"
    assert "\x1b" not in site.outside("alice", "files", "show", hostile, code=INVALID).err
    plan = ("spray", "lz:in/rows.csv", "sales::rows", "--plane", "data", "--dry-run", "--overwrite", "--json")
    shown = site.outside("alice", *plan).out
    with urllib.request.urlopen(f"http://127.0.0.1:{site.metrics}", timeout=30) as answer:
        shown += answer.read().decode()
    assert 'cropduster_plane_requests_total{plane="data"' in shown
    site.server.send_signal(signal.SIGTERM)
    out, err = site.server.communicate()
    lines = [json.loads(line) for line in (site.machine.folder / "audit.log").read_text().splitlines()]
    spray = next(
        line for line in lines if line["method"] == "TransferService/CreateTransfer" and line["result"] == "OK"
    )
    assert (spray["who"], spray["side"]) == ("alice", "external")
    assert spray["peer"].startswith("ipv4:127.0.0.1:")
    assert spray["named"] == ["read lz:in/rows.csv", "write sales::rows", "write data:sales/rows/*"]
    denied = {(line["who"], line["result"]) for line in lines if line["result"] != "OK"}
    assert {("bob", "CALLER_DENIED"), ("", "CALLER_UNKNOWN")} <= denied
    assert {line["who"] for line in lines if line["side"] == "internal"} >= {"ops"}
    secrets = [site.token(who) for who in ("alice", "bob", "root", "late", "forged")]
    secrets += [secret.rpartition(".")[2] for secret in secrets]  # signatures
    secrets.append((site.machine.state / "cookie").read_text().strip())
    secrets += [line for path in site.machine.folder.rglob("*key*") for line in _inside(path)]
    kept = shown + (
        out + err + (site.machine.folder / "audit.log").read_text() + (site.machine.folder / "server.log").read_text()
    )
    with sqlite3.connect(site.machine.state / "state.db") as database:
        kept += "\n".join(database.iterdump())
    assert "alice" in kept
    assert [secret for secret in secrets if secret in kept] == []


def _inside(path: Path) -> list[str]:
    """The lines of a private key."""
    return [line for line in path.read_text().splitlines() if len(line) > 40] if path.suffix != ".pub" else []
