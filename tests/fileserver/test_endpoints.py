"""The file servers behind a service of Kubernetes, told by its API at the wire; and calls that follow them."""

from __future__ import annotations

import asyncio

import pytest
from grpc import aio

from fileserver import config
from fileserver.endpoints import Endpoints
from fileserver.errors import InvalidSpec
from fileserver.transfer.dispatch import Dispatch, Replicas
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress
from fileserver.v1 import part_pb2, part_pb2_grpc
from tests.doubles import kubernetes_api
from tests.doubles.kubernetes_api import Api


@pytest.fixture
def api(tmp_path, monkeypatch):
    with kubernetes_api.running() as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path)))
        yield made


def serve(api: Api, *hosts: str, ready: bool = True, name: str = "s-1") -> None:
    ends = [{"addresses": [host], "conditions": {"ready": ready}} for host in hosts]
    labels = {"kubernetes.io/service-name": "servers"}
    api.put("endpointslices", name, labels, addressType="IPv4", endpoints=ends)


async def told(endpoints: Endpoints, address: str) -> None:
    while endpoints.address != address:
        await asyncio.sleep(0.01)


@pytest.fixture
def endpoints(api):
    made = Endpoints("kubernetes:///servers:7300")
    yield made
    made.stop()
    while made._thread.is_alive():
        api.hang_up()
        made._thread.join(0.02)


async def test_what_becomes_ready_is_told_at_once_and_what_leaves_too(api, endpoints):
    serve(api, "10.0.0.2", "10.0.0.1")
    api.put("endpointslices", "other", {"kubernetes.io/service-name": "x"}, addressType="IPv4", endpoints=[])
    assert endpoints.address == ""
    endpoints.start()
    await told(endpoints, "ipv4:10.0.0.1:7300,10.0.0.2:7300")
    assert endpoints.changed()
    assert not endpoints.changed()
    serve(api, "10.0.0.3", name="s-2")
    await told(endpoints, "ipv4:10.0.0.1:7300,10.0.0.2:7300,10.0.0.3:7300")
    serve(api, "10.0.0.1", "10.0.0.2", ready=False)
    await told(endpoints, "ipv4:10.0.0.3:7300")
    api.hang_up()  # which an API server does now and then: what happens meanwhile is seen by the next list
    api.remove("endpointslices", "s-2")
    await told(endpoints, "")
    assert {verb for verb, _ in api.asked} == {"list", "watch"}


async def test_an_api_that_refuses_is_asked_again(api, endpoints, monkeypatch):
    monkeypatch.setattr("fileserver.endpoints._AGAIN", 0.01)
    serve(api, "10.0.0.1")
    api.refused.add(("list", "endpointslices"))
    endpoints.start()
    while len(api.asked) < 3:
        await asyncio.sleep(0.01)
    api.refused.clear()
    await told(endpoints, "ipv4:10.0.0.1:7300")


async def test_pods_with_addresses_of_both_kinds_are_called_by_one(api, endpoints):
    serve(api, "10.0.0.1")
    ends = [{"addresses": ["fd00::1"], "conditions": {"ready": True}}]
    labels = {"kubernetes.io/service-name": "servers"}
    api.put("endpointslices", "s-6", labels, addressType="IPv6", endpoints=ends)
    endpoints.start()
    await told(endpoints, "ipv4:10.0.0.1:7300")
    api.remove("endpointslices", "s-1")
    await told(endpoints, "ipv6:[fd00::1]:7300")


async def test_an_answer_that_nobody_understands_is_not_the_last(api, endpoints, monkeypatch):
    monkeypatch.setattr("fileserver.endpoints._AGAIN", 0.01)
    labels = {"kubernetes.io/service-name": "servers"}
    api.put("endpointslices", "s-1", labels, addressType="IPv4", endpoints=[{"addresses": []}])
    endpoints.start()
    while len(api.asked) < 3:
        await asyncio.sleep(0.01)
    serve(api, "10.0.0.1")
    await told(endpoints, "ipv4:10.0.0.1:7300")


class Part(part_pb2_grpc.PartServiceServicer):
    """Does every segment at once, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    async def Pull(self, request, context):  # noqa: N802, ARG002 - the wire
        self.count += 1
        yield part_pb2.PullResponse(progress=part_pb2.SegmentProgress(done=True))


async def test_segments_go_where_the_pods_are_now(api):
    parts, servers, port = [Part(), Part()], [], 0
    for number, part in enumerate(parts):
        server = aio.server(options=(("grpc.so_reuseport", 0),))
        part_pb2_grpc.add_PartServiceServicer_to_server(part, server)
        port = server.add_insecure_port(f"127.0.0.{number + 1}:{port}")
        await server.start()
        servers.append(server)
    here = []

    async def fill(transfer, number, live):
        here.append(number)

    async def refresh(_):
        """Nothing is wished."""

    dispatch = Dispatch(Replicas(f"kubernetes:///servers:{port}", "c"), fill, refresh)
    endpoints = dispatch._endpoints
    assert endpoints is not None
    serve(api, "127.0.0.1")
    dispatch.connect()
    await told(endpoints, f"ipv4:127.0.0.1:{port}")
    await dispatch.fill("t", 1, Live(Progress()))
    serve(api, "127.0.0.2")
    await told(endpoints, f"ipv4:127.0.0.2:{port}")
    await dispatch.fill("t", 2, Live(Progress()))
    assert ([part.count for part in parts], here) == ([1, 1], [])
    await dispatch.aclose()
    for server in servers:
        await server.stop(None)
    api.hang_up()


def test_an_address_of_pods_is_encrypted_or_refused(tmp_path):
    text = (
        "planes: {m: {type: s3, bucket: b}}\ndatabase: {url: {env: X}}\n"
        "replicas: {address: 'kubernetes:///%s', secret: {env: Y}}\n"
    )
    for address, told_of in (("servers:7300", "not encrypted"), ("servers", "replicas.address")):
        (tmp_path / "c.yaml").write_text(text % address)
        with pytest.raises(InvalidSpec, match=told_of):
            config.load(tmp_path / "c.yaml", {}, tmp_path / "state")
