"""Where a supervisor asks for health: from anywhere, without TLS and secrets, and for nothing else."""

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fileserver import config
from fileserver.auth import METADATA_KEY
from fileserver.errors import InvalidSpec
from fileserver.server import Listener, Server, Service

COOKIE = "ab" * 32


class Jobs:
    async def start(self): ...

    async def stop(self): ...

    def unfinished(self):
        return 0


class Everything:
    """A service that has every method there is."""

    def service(self, _details):
        msg = "somebody got in"
        raise AssertionError(msg)


async def test_health_is_told_to_whoever_asks_and_nothing_else(tmp_path):
    server = Server(
        [Service("Everything", lambda listener: listener.add_generic_rpc_handlers((Everything(),)))],
        Jobs(),
        [Listener([f"unix:{tmp_path}/s.sock"], [])],
        probes=["127.0.0.1:0"],
    )
    bound = await server.start()
    async with aio.insecure_channel(bound[-1]) as channel:
        health, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
        for call in (
            health.Watch(asked).read(),
            channel.unary_unary("/t.T/one")(b"", metadata=((METADATA_KEY, COOKIE),)),
        ):
            with pytest.raises(aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is StatusCode.UNIMPLEMENTED
        await server._health.enter_graceful_shutdown()
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await server.stop(0)


def test_health_may_be_asked_from_other_machines(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("listen: {health: '0.0.0.0:7302'}")
    assert config.load(path, {}, tmp_path).listen.health == "0.0.0.0:7302"
    path.write_text("listen: {health: 'everywhere'}")
    with pytest.raises(InvalidSpec, match="is no address") as caught:
        config.load(path, {}, tmp_path)
    assert list(caught.value.violations) == ["listen.health"]
