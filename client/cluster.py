"""Cropduster on Kubernetes as its API tells: the Deployment of a release, its pods, and how many there shall be.

Asks for what the operator's Role of the chart grants and nothing else (kubernetes.io/docs/reference/kubernetes-api).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from client.errors import Code, Reason, ServerError, invalid, unavailable

_LABELS: Final = "app.kubernetes.io/name=cropduster,app.kubernetes.io/component=server"
_RELEASE: Final = "app.kubernetes.io/instance"
_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LOOK: Final = 1.0  # seconds between two looks whether what was asked is there

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pod:
    """One file server."""

    name: str
    phase: str
    ready: bool
    restarts: int
    node: str
    address: str
    started: str
    """UTC, as in RFC 3339; "" while it has not."""


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """Who decides how many there are."""

    name: str
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Status:
    """A release."""

    release: str
    namespace: str
    deployment: str
    wanted: int
    ready: int
    shares: bool
    """They share a PostgreSQL, so that there may be several."""
    autoscaler: Autoscaler | None
    pods: tuple[Pod, ...]


class Cluster:
    """The API of the cluster that the environment names: that of the pod it runs in, or of a kubeconfig.

    Args:
        context: of the kubeconfig; its current one if empty.
        namespace: that of the context if empty.
        release: of the chart; needed where a namespace has several.

    Raises:
        ServerError: INVALID_SPEC, the library is missing or no cluster is named.
    """

    def __init__(self, context: str = "", namespace: str = "", release: str = "") -> None:
        self._client, configuration, self._namespace = _configured(context, namespace)
        api = self._client.ApiClient(configuration)
        self._apps = self._client.AppsV1Api(api)
        self._core = self._client.CoreV1Api(api)
        self._scaling = self._client.AutoscalingV2Api(api)
        self._host: str = configuration.host
        self._release = release

    def status(self) -> Status:
        """How the release stands now.

        Raises:
            ServerError: OBJECT_NOT_FOUND; INVALID_SPEC where there are several; CALLER_UNKNOWN, CALLER_DENIED,
                SERVER_UNAVAILABLE, as they say.
        """
        deployment = self._deployment()
        release = deployment.metadata.labels.get(_RELEASE, "")
        selector = f"{_LABELS},{_RELEASE}={release}"
        pods = self._ask(lambda: self._core.list_namespaced_pod(self._namespace, label_selector=selector))
        return Status(
            release,
            self._namespace,
            deployment.metadata.name,
            deployment.spec.replicas if deployment.spec.replicas is not None else 1,
            (deployment.status.ready_replicas or 0) if deployment.status else 0,
            deployment.spec.strategy is None or deployment.spec.strategy.type != "Recreate",
            self._autoscaler(deployment.metadata.name),
            tuple(sorted(map(_pod, pods.items), key=lambda pod: pod.name)),
        )

    def scale(self, replicas: int) -> Status:
        """Have so many file servers; returns how the release stood before.

        Raises:
            ServerError: as `status`; INVALID_SPEC where an autoscaler decides, or where they share no database.
        """
        before = self.status()
        if before.autoscaler is not None:
            a = before.autoscaler
            msg = (
                f"the autoscaler {a.name} decides how many there are, from {a.least} to {a.most}: change its bounds "
                "with the chart's values autoscaling.minReplicas and maxReplicas"
            )
            raise invalid(msg, autoscaler=a.name)
        if replicas > 1 and not before.shares:
            msg = (
                f"{before.deployment} keeps its state on a volume of one pod: set database.secret in the chart's "
                "values, so that several share a PostgreSQL"
            )
            raise invalid(msg, deployment=before.deployment)
        body = {"spec": {"replicas": replicas}}
        patch = self._apps.patch_namespaced_deployment_scale
        self._ask(lambda: patch(before.deployment, self._namespace, body))
        return before

    def settle(self, replicas: int, seconds: float) -> Iterator[Status]:
        """The status again and again until so many are ready and no other is left; raises ServerError after a while."""
        deadline = time.monotonic() + seconds
        while True:
            now = self.status()
            yield now
            if now.ready == replicas == len(now.pods):
                return
            if time.monotonic() >= deadline:
                msg = f"{now.ready} of {replicas} file servers are ready after {seconds:.0f} s: see their pods' events"
                raise unavailable(msg, deployment=now.deployment)
            time.sleep(_LOOK)

    def _deployment(self) -> Any:
        selector = _LABELS + (f",{_RELEASE}={self._release}" if self._release else "")
        of = self._apps.list_namespaced_deployment
        found = self._ask(lambda: of(self._namespace, label_selector=selector)).items
        if len(found) == 1:
            return found[0]
        if not found:
            what = f"release {self._release}" if self._release else "release of cropduster"
            msg = f"namespace {self._namespace} has no {what}: name another with --namespace or --context"
            raise ServerError(Reason.OBJECT_NOT_FOUND, Code.NOT_FOUND, msg, {"namespace": self._namespace})
        names = ", ".join(sorted(d.metadata.labels.get(_RELEASE, d.metadata.name) for d in found))
        msg = f"namespace {self._namespace} has several releases ({names}): name one with --release"
        raise invalid(msg, namespace=self._namespace)

    def _autoscaler(self, deployment: str) -> Autoscaler | None:
        of = self._scaling.list_namespaced_horizontal_pod_autoscaler
        for each in self._ask(lambda: of(self._namespace)).items:
            target = each.spec.scale_target_ref
            if (target.kind, target.name) == ("Deployment", deployment):
                return Autoscaler(each.metadata.name, each.spec.min_replicas or 1, each.spec.max_replicas)
        return None

    def _ask(self, call: Callable[[], T]) -> T:
        with _told(self._client, self._host):
            return call()


def _configured(context: str, namespace: str) -> tuple[Any, Any, str]:
    """The library, how to call the API, and the namespace."""
    try:
        from kubernetes import client, config  # noqa: PLC0415  # 0.5 s that only these commands pay
    except ImportError:
        msg = "what talks to Kubernetes is not installed: pip install 'cropduster[kubernetes]'"
        raise invalid(msg) from None
    made = client.Configuration()
    made.retries = 1
    file = os.environ.get("KUBECONFIG")  # the library looks at it once, when it is loaded
    try:
        config.load_kube_config(file, context or None, made)
        listed, current = config.list_kube_config_contexts(file)
        chosen = next((each for each in listed if each["name"] == context), current)
        usual = chosen["context"].get("namespace", "default")
    except config.ConfigException as error:
        if context or not _OWN_NAMESPACE.exists():
            msg = f"no cluster is named ({error}): set KUBECONFIG, or run this in a pod of the cluster"
            raise invalid(msg) from None
        config.load_incluster_config(made)
        usual = _OWN_NAMESPACE.read_text("ascii").strip()
    return client, made, namespace or usual


def _pod(pod: Any) -> Pod:
    containers = pod.status.container_statuses or []
    started = pod.status.start_time
    return Pod(
        pod.metadata.name,
        "Terminating" if pod.metadata.deletion_timestamp else pod.status.phase or "Unknown",
        bool(containers) and all(each.ready for each in containers),
        sum(each.restart_count for each in containers),
        pod.spec.node_name or "",
        pod.status.pod_ip or "",
        started.strftime("%Y-%m-%dT%H:%M:%SZ") if started else "",
    )


@contextmanager
def _told(client: Any, host: str) -> Iterator[None]:
    """Say what the API refuses, and why it does not answer, in our words."""
    from urllib3.exceptions import HTTPError  # noqa: PLC0415  # which the library speaks through

    try:
        yield
    except client.ApiException as error:
        if error.status == 401:
            msg = f"the Kubernetes at {host} does not know the caller: see the user of the kubeconfig"
            raise ServerError(Reason.CALLER_UNKNOWN, Code.UNAUTHENTICATED, msg, {"host": host}) from None
        if error.status == 403:
            msg = (
                f"the Kubernetes at {host} forbids it ({_message(error)}): the chart's Role for operators grants what "
                "is needed; bind it with the value operators"
            )
            raise ServerError(Reason.CALLER_DENIED, Code.PERMISSION_DENIED, msg, {"host": host}) from None
        msg = f"the Kubernetes at {host} answers {error.status} ({_message(error)})"
        raise unavailable(msg, host=host) from None
    except HTTPError as error:
        msg = f"the Kubernetes at {host} does not answer ({type(error).__name__}): see the cluster of the kubeconfig"
        raise unavailable(msg, host=host) from None


def _message(error: Any) -> str:
    import json  # noqa: PLC0415  # only failures

    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
