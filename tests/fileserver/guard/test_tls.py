"""Listeners with certificates: who gets in, and what happens when the files change."""

import asyncio
import base64
import socket
import ssl
from datetime import timedelta
from functools import partial

import grpc
import pytest
from grpc import StatusCode, aio
from structlog.testing import capture_logs

from client import connection
from client.calls import Calls
from client.connection import Connection, Running
from client.credentials import Credentials
from client.errors import Exit, ServerError
from fileserver import config
from fileserver.auth import caller
from fileserver.errors import CallerDenied, InvalidSpec
from fileserver.guard import listeners
from fileserver.guard.certified import names
from fileserver.sections import Internal, Tls
from fileserver.server import Server, Service
from fileserver.status import from_call
from fileserver.tls import Files, Watched
from fileserver.transfer import dispatch
from fileserver.transfer.dispatch import Dispatch, Replicas
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress
from fileserver.v1 import part_pb2_grpc, plane_pb2, plane_pb2_grpc
from tests.doubles.authority import Authority


class Jobs:
    async def start(self): ...
    async def stop(self): ...
    def unfinished(self):
        return 0


class Planes(plane_pb2_grpc.PlaneServiceServicer):
    async def ListPlanes(self, request, context):  # noqa: N802, ARG002 - as the wire has it
        return plane_pb2.ListPlanesResponse(default_plane=f"{caller().name} {caller().local}")


SERVICES = [
    Service("PlaneService", partial(plane_pb2_grpc.add_PlaneServiceServicer_to_server, Planes())),
    Service(
        "PartService", partial(part_pb2_grpc.add_PartServiceServicer_to_server, part_pb2_grpc.PartServiceServicer())
    ),
]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ours")


class Site:
    """A server with an internal listener that asks for certificates."""

    def __init__(self, authority, allow=("spiffe://site/replica-*", "ops")):
        self.own = authority.issue("server", names=["localhost"], addresses=["127.0.0.1"])
        self.settings = Internal(
            address="127.0.0.1:0",
            tls=Tls(certificate=self.own.certificate, key=self.own.key, clients=authority.ca),
            allow=allow,
        )

    async def __aenter__(self):
        listener = listeners._certified(self.settings, self.settings.tls, "127.0.0.1:0", [])
        self.server = Server(SERVICES, Jobs(), [listener])
        (self.address,) = await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.stop(0)

    async def ask(self, ca, shown=None):
        """Who the server takes the holder of a certificate for."""
        pair = (shown.key.read_bytes(), shown.certificate.read_bytes()) if shown else (None, None)
        credentials = grpc.ssl_channel_credentials(ca.read_bytes(), *pair)
        async with aio.secure_channel(self.address, credentials) as channel:
            answer = await plane_pb2_grpc.PlaneServiceStub(channel).ListPlanes(plane_pb2.ListPlanesRequest(), timeout=9)
        return answer.default_plane

    def serial(self, ca):
        """Of the certificate that the server shows; it hangs up after that, which is not our business here."""
        host, _, port = self.address.rpartition(":")
        context = ssl.create_default_context(cafile=ca)
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return secure.getpeercert()["serialNumber"]


@pytest.fixture
async def site(authority):
    async with Site(authority) as made:
        yield made


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ({"uris": ["spiffe://site/replica-3"], "names": ["x.example"]}, "spiffe://site/replica-3"),
        ({"names": ["other.example", "ops"]}, "ops"),
        ({"common": "ops"}, "ops"),
    ],
)
async def test_a_name_of_the_list_gets_in_and_no_file_of_the_caller_is_within_reach(site, authority, shown, name):
    assert await site.ask(authority.ca, authority.issue("caller", **shown)) == f"{name} False"


@pytest.mark.parametrize(
    "shown",
    [
        {"common": "somebody"},
        {"uris": ["spiffe://evil/spiffe://site/replica-1"]},
        {"common": "ops", "names": ["web.example"]},  # a common name counts only where there is no other
    ],
)
async def test_other_names_are_told_that_they_may_not(site, authority, shown):
    with pytest.raises(aio.AioRpcError) as caught:
        await site.ask(authority.ca, authority.issue("caller", **shown))
    assert caught.value.code() is StatusCode.PERMISSION_DENIED
    error = from_call(caught.value)
    assert type(error) is CallerDenied
    assert "listen.internal.allow" in error.message


@pytest.mark.parametrize("shown", ["none", "another authority's", "expired"])
async def test_who_shows_no_sound_certificate_does_not_even_connect(site, authority, tmp_path, shown):
    pair = {
        "none": lambda: None,
        "another authority's": lambda: Authority(tmp_path / "theirs").issue("ops"),
        "expired": lambda: authority.issue("ops", ends=-timedelta(hours=1)),
    }[shown]()
    with pytest.raises(aio.AioRpcError) as caught:
        await site.ask(authority.ca, pair)
    assert caught.value.code() is StatusCode.UNAVAILABLE


async def test_a_server_that_another_authority_signed_is_not_believed(site, authority, tmp_path):
    other = Authority(tmp_path / "theirs")
    with pytest.raises(aio.AioRpcError):
        await site.ask(other.ca, authority.issue("ops"))


def test_a_common_name_counts_only_alone():
    assert names({"x509_common_name": [b"a"], "peer_dns": [b"b"], "peer_uri": [b"c"]}) == ["c", "b"]
    assert names({"x509_common_name": [b"a"]}) == ["a"]
    assert names({}) == []


async def test_new_certificates_are_shown_and_new_authorities_believed_without_a_restart(site, authority):
    shown = authority.issue("ops")
    before = await asyncio.to_thread(site.serial, authority.ca)
    later = Authority(authority.ca.parent)  # the same files, another authority
    with capture_logs() as lines:
        later.issue("server", names=["localhost"], addresses=["127.0.0.1"])
        assert await asyncio.to_thread(site.serial, later.ca) != before
        with pytest.raises(aio.AioRpcError):
            await site.ask(later.ca, shown)  # of the authority before
        assert await site.ask(later.ca, later.issue("ops")) == "ops False"
    assert "certificate read again" in {line["event"] for line in lines}


async def test_a_broken_certificate_changes_nothing_but_the_log(site, authority):
    shown = authority.issue("ops")
    for path in (site.own.key, site.own.certificate):
        kept = path.read_bytes()
        path.write_bytes(b"half of it")
        with capture_logs() as lines:
            for _ in range(2):
                assert await site.ask(authority.ca, shown) == "ops False"
        (line,) = [each for each in lines if each["log_level"] == "error"]
        assert str(path) in line["why"]
        path.write_bytes(kept)


@pytest.mark.parametrize("fault", ["missing", "no certificate", "another key", "expired", "no key", "strange key"])
def test_what_cannot_be_used_is_refused_with_the_file(authority, fault):
    made = authority.issue("server", ends=timedelta(hours=-1 if fault == "expired" else 1))
    if fault == "missing":
        made.key.unlink()
    elif fault == "another key":
        made.key.write_bytes(authority.issue("another").key.read_bytes())
    elif fault == "strange key":  # PKCS #8, of an algorithm that nobody knows
        text = base64.encodebytes(bytes.fromhex("302e020100300506032b6579042204") + b"\x20" + bytes(32)).decode()
        made.key.write_text(f"-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n")
    elif fault != "expired":
        (made.certificate if fault == "no certificate" else made.key).write_bytes(b"x")
    with pytest.raises(InvalidSpec) as caught:
        Watched(Files(made.certificate, made.key), "listen.internal.tls")
    at_fault = made.certificate if fault in {"no certificate", "expired"} else made.key
    assert str(at_fault) in caught.value.violations["listen.internal.tls"]


# --- calls between file servers ---------------------------------------------------------------------------------


async def test_file_servers_call_each_other_with_their_certificates_and_change_them_without_a_restart(authority):
    async with Site(authority, allow=["localhost"]) as site:
        shown = Watched(Files(site.own.certificate, site.own.key, authority.ca), "x")
        made = Dispatch(Replicas(f"ipv4:{site.address}", "", shown, "localhost"), None, None)

        async def ask():
            made.connect()
            stub = plane_pb2_grpc.PlaneServiceStub(made._channel)
            return (await stub.ListPlanes(plane_pb2.ListPlanesRequest(), timeout=9)).default_plane

        assert await ask() == "localhost False"
        first = made._channel
        assert await ask() == "localhost False"
        assert made._channel is first
        later = Authority(authority.ca.parent)
        later.issue("server", names=["localhost"], addresses=["127.0.0.1"])
        assert await ask() == "localhost False"
        assert made._channel is not first
        await made.aclose()


async def test_a_file_server_that_others_refuse_does_the_work_itself(authority, monkeypatch):
    monkeypatch.setattr(dispatch, "_WAIT", 0)
    done = []

    async def here(transfer, number, _live):
        done.append((transfer, number))

    async with Site(authority, allow=["another"]) as site:
        shown = Watched(Files(site.own.certificate, site.own.key, authority.ca), "x")
        with capture_logs() as lines:
            made = Dispatch(Replicas(f"ipv4:{site.address}", "", shown, "localhost"), here, None)
            await made.fill("t", 3, Live(Progress()))
            await made.aclose()
    assert done == [("t", 3)]
    assert "listen.internal.allow" in lines[0]["why"]


# --- the command line's side ------------------------------------------------------------------------------------


def planes(site, **given):
    """What the client is told, in a thread of its own."""

    def asked():
        route = Running(site.address, Credentials(**{k: str(v) for k, v in given.items()}))
        with Calls(Connection(route), patience=0) as calls:
            stub = lambda channel: plane_pb2_grpc.PlaneServiceStub(channel).ListPlanes  # noqa: E731
            return calls.call(stub, plane_pb2.ListPlanesRequest()).default_plane

    return asyncio.to_thread(asked)


async def test_the_client_shows_its_certificate(site, authority):
    shown = authority.issue("ops")
    assert await planes(site, ca=authority.ca, cert=shown.certificate, key=shown.key) == "ops False"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no certificate", "--cert and --key"),
        ("a stranger's certificate", "does not accept"),
        ("another authority", "is not believed to be who it says"),
        ("no such file", "--ca /nowhere"),
        ("half a pair", "both --cert and --key"),
    ],
)
async def test_the_client_says_what_is_wrong_between_it_and_the_server(site, authority, tmp_path, fault, said):
    other = Authority(tmp_path / "theirs")
    shown, stranger = authority.issue("ops"), other.issue("ops")
    given = {
        "no certificate": {"ca": authority.ca},
        "a stranger's certificate": {"ca": authority.ca, "cert": stranger.certificate, "key": stranger.key},
        "another authority": {"ca": other.ca, "cert": shown.certificate, "key": shown.key},
        "no such file": {"ca": "/nowhere"},
        "half a pair": {"ca": authority.ca, "cert": shown.certificate},
    }[fault]
    with pytest.raises(ServerError, match=said) as caught:
        await planes(site, **given)
    assert caught.value.exit is Exit.BAD_REQUEST


async def test_an_encrypted_address_that_is_called_in_the_clear_is_told_to_be_one(site, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0)
    with pytest.raises(ServerError, match="--ca"):
        await planes(site)


# --- configuration ----------------------------------------------------------------------------------------------

TLS = "tls: {certificate: /c.pem, key: /k.pem"


@pytest.mark.parametrize(
    ("listen", "field", "said"),
    [
        (f"internal: {{address: '0.0.0.0:1', {TLS}}}}}", "listen.internal", "tls.clients"),
        (f"internal: {{address: '0.0.0.0:1', {TLS}, clients: /ca.pem}}}}", "listen.internal", "allow"),
        ("internal: {address: '127.0.0.1:1', allow: [x]}", "listen.internal", "configure tls"),
        ("internal: {address: '0.0.0.0:1'}", "listen.internal", "until TLS and tokens are configured"),
        (f"external: {{address: '0.0.0.0:1', {TLS}}}}}", "listen.external", "until TLS and tokens are configured"),
        (f"external: {{address: '127.0.0.1:1', {TLS}}}}}", "listen.external.tls", "tokens"),
        (
            "internal: {address: '127.0.0.1:1', tls: {certificate: c.pem, key: /k}}",
            "listen.internal.tls.certificate",
            "absolute",
        ),
        (
            f"internal: {{address: '0.0.0.0:1', {TLS}, client: /ca}}}}",
            "listen.internal.tls.client",
            "did you mean clients",
        ),
    ],
)
def test_a_listener_is_guarded_or_of_this_machine(tmp_path, listen, field, said):
    path = tmp_path / "config.yaml"
    path.write_text(f"listen: {{{listen}}}")
    with pytest.raises(InvalidSpec) as caught:
        config.load(path, {}, tmp_path)
    assert said in caught.value.violations[field]


def test_with_certificates_the_internal_address_may_be_any(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"listen: {{internal: {{address: '0.0.0.0:7300', {TLS}, clients: /ca.pem}}, allow: ['*']}}}}")
    loaded = config.load(path, {}, tmp_path)
    assert loaded.listen.internal.address == "0.0.0.0:7300"
    assert config.check_address("--listen", "10.0.0.1:1", loaded) == "10.0.0.1:1"
