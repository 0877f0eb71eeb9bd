"""Which calls the chart's Envoy makes a second time, when a file server has not answered well."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fileserver.guard.needs import EVERYWHERE
from tests.doubles import envoy
from tests.helm.charted import rendered

CHANGES = ("Create", "Register", "Rename", "Delete", "Rebuild", "Update", "Sweep", "Move", "Copy", "Export", "Relink")
CHANGES += ("Stop", "Retry", "Reset", "Mirror", "Cancel", "Pause", "Resume", "Pull", "Push", "Work", "Write")


@pytest.fixture(scope="module")
def routes():
    config = yaml.safe_load(rendered("scaled")["ConfigMap", "lake-cropduster-envoy"]["data"]["envoy.yaml"])
    (listener,) = config["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    return host["routes"]


def test_what_changes_something_is_made_again_only_where_it_reached_nobody(routes):
    reading, others = routes
    again = re.compile(reading["match"]["safe_regex"]["regex"])
    made = {name for name in EVERYWHERE if again.fullmatch(name)}
    assert not [name for name in made if name.rpartition("/")[2].startswith(CHANGES)]
    assert {"/fileserver.v1.FileService/GetFile", "/fileserver.v1.DataService/Read"} <= made
    never_sent = {"connect-failure", "refused-stream", "reset-before-request"}
    assert set(others["route"]["retry_policy"]["retry_on"].split(",")) == never_sent


class Away(grpc.GenericRpcHandler):
    """Says of every call that the plane is away, which may be after half of it was done."""

    def __init__(self):
        self.asked = Counter()

    def service(self, handler_call_details):
        if handler_call_details.method.startswith("/grpc."):
            return None

        def answer(_request, context):
            self.asked[handler_call_details.method.rpartition("/")[2]] += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the plane is away")

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def serving(handler):
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    alive = health.HealthServicer()
    alive.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait()


def test_a_call_that_may_be_half_done_reaches_one_server_and_one_that_reads_reaches_others(routes, tmp_path):
    away = Away()
    with (
        serving(away) as first,
        serving(away) as second,
        envoy.running(tmp_path, [first, second], routes) as address,
        grpc.insecure_channel(address) as channel,
    ):
        for method in ("FileService/GetFile", "FileService/RenameFile", "TransferService/CreateTransfer"):
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary(f"/fileserver.v1.{method}")(b"", timeout=20)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert away.asked == {"GetFile": 3, "RenameFile": 1, "CreateTransfer": 1}
