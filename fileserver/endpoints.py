"""The file servers behind a service of Kubernetes, as its endpoint slices tell, where DNS is not enough.

DNS tells of a new pod when its record has expired and says nothing of one that leaves; a watch tells at once.
kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1; a Role with `list` and `watch` on
endpoint slices is all that it needs.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Final

import structlog

from fileserver.sections import KUBERNETES
from planes.errors import Error
from planes.incluster import Cluster, cluster, told

_WATCH: Final = 300  # seconds after which a watch is begun anew
_AGAIN: Final = 2.0  # seconds after one that failed

_log = structlog.get_logger(__name__)


class Endpoints:
    """Follows the endpoints of a service in a thread of its own.

    Args:
        target: `kubernetes:///SERVICE[.NAMESPACE]:PORT`.
    """

    def __init__(self, target: str) -> None:
        found = re.fullmatch(KUBERNETES, target)
        assert found, "the configuration has checked it"
        self.service, self._namespace, self._port = found.groups("")
        self._slices: dict[str, list[str]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="endpoints", daemon=True)
        self._seen = ""

    @property
    def address(self) -> str:
        """Those that are ready, as gRPC writes them: `ipv4:HOST:PORT,…`; "" while none is known.

        gRPC takes addresses of one kind at a time: pods that have both are called by IPv4.
        """
        hosts = sorted({host for hosts in list(self._slices.values()) for host in hosts})
        if older := [host for host in hosts if ":" not in host]:
            return f"ipv4:{','.join(f'{host}:{self._port}' for host in older)}"
        return f"ipv6:{','.join(f'[{host}]:{self._port}' for host in hosts)}" if hosts else ""

    def changed(self) -> bool:
        """Whether there are others than at the last time that this was asked."""
        before, self._seen = self._seen, self.address
        return before != self._seen

    def start(self) -> None:
        """Begin to follow; nothing happens if that has begun."""
        if not self._thread.is_alive() and not self._ended.is_set():
            self._thread.start()

    def stop(self) -> None:
        """Follow no more; a watch that hangs ends with the process."""
        self._ended.set()

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                here = cluster()
                with told(here, f"the endpoints of {self.service}"):
                    self._once(here)
            except Error as error:
                _log.warning("endpoints are not known", service=self.service, error=error.message)
            except Exception:  # noqa: BLE001 - nobody would follow any more, and segments go to pods that have gone
                _log.warning("endpoints are not understood", service=self.service, exc_info=True)
            else:
                continue
            self._ended.wait(_AGAIN)

    def _once(self, here: Cluster) -> None:
        """List them all, then follow what changes until the watch ends."""
        of = here.library.client.DiscoveryV1Api(here.api).list_namespaced_endpoint_slice
        where = {
            "namespace": self._namespace or here.namespace,
            "label_selector": f"kubernetes.io/service-name={self.service}",
        }
        listed = of(**where, _request_timeout=_WATCH)
        self._slices = {each.metadata.name: _ready(each) for each in listed.items}
        since = listed.metadata.resource_version
        stream = here.library.watch.Watch().stream(
            of, **where, resource_version=since, timeout_seconds=_WATCH, _request_timeout=_WATCH + 15
        )
        for event in stream:
            if self._ended.is_set():
                return
            name = event["object"].metadata.name
            if event["type"] == "DELETED":
                self._slices.pop(name, None)
            else:
                self._slices[name] = _ready(event["object"])


def _ready(found: Any) -> list[str]:
    """Addresses of a slice that take calls; a condition that is not told counts as yes, as the API says."""
    return [
        endpoint.addresses[0]
        for endpoint in found.endpoints or []
        if found.address_type in {"IPv4", "IPv6"}
        and (endpoint.conditions is None or endpoint.conditions.ready is not False)
    ]
