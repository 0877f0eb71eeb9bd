"""Envoy in front of file servers: round robin over those whose health service says SERVING. The real one, from PyPI."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from tests.doubles.seaweedfs import free_ports, program, stop

_WINDOW: Final = 16 * 2**20
_READY_SECONDS: Final = 30
_HTTP2: Final = {"initial_stream_window_size": _WINDOW, "initial_connection_window_size": _WINDOW}
_TYPE: Final = "type.googleapis.com/envoy.extensions"


@contextlib.contextmanager
def running(folder: Path, ports: Sequence[int], routes: Sequence[Any] = ()) -> Iterator[str]:
    """Start the proxy before these loopback ports, give its address, stop it by its process id.

    Args:
        folder: for its files.
        ports: of the file servers.
        routes: as Envoy has them, to a cluster `servers`; else reading calls are made again, the others are not.

    Raises:
        RuntimeError: it does not answer within half a minute; the message holds the end of its output.
    """
    (port,) = free_ports(1)
    config = folder / "envoy.json"  # YAML, too
    config.write_text(json.dumps(_config(port, ports, routes or [_READING, _OTHERS])))
    with (folder / "envoy.output").open("wb") as output:
        process = subprocess.Popen(
            [program("envoy"), "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        if not _answers(process, port):
            msg = f"Envoy did not start; the end of its output:\n{(folder / 'envoy.output').read_text()[-2000:]}"
            raise RuntimeError(msg)
        yield f"127.0.0.1:{port}"
    finally:
        stop(process)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_READY_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return process.poll() is None


def _route(match: dict[str, Any], retry_on: str) -> dict[str, Any]:
    return {
        "match": match,
        "route": {
            "cluster": "servers",
            "timeout": "0s",
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},
            "retry_policy": {
                "retry_on": retry_on,
                "num_retries": 2,
                "host_selection_retry_max_attempts": 3,
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {"@type": f"{_TYPE}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                    }
                ],
            },
        },
    }


_NEVER_SENT: Final = "connect-failure,refused-stream,reset-before-request"
_READING: Final = _route({"safe_regex": {"regex": "/fileserver.*/(Get|List|Watch).*"}}, f"{_NEVER_SENT},unavailable")
_OTHERS: Final = _route({"prefix": "/"}, _NEVER_SENT)


def _config(port: int, ports: Sequence[int], routes: Sequence[Any]) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "http2_protocol_options": _HTTP2,
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes)}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    options = {
        "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": _HTTP2},
    }
    cluster = {
        "name": "servers",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "0.5s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "load_assignment": {
            "cluster_name": "servers",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(each)}} for each in ports]}],
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": "in", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
