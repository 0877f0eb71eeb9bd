"""The Kubernetes that this process runs in, or that `KUBECONFIG` names: how to call it, and what its secrets hold.

The library is loaded at the first use (0.5 s). kubernetes.io/docs/reference/kubernetes-api; a Role with `get` on the
named secrets is all that `secret` needs.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planes.errors import Refused, Unavailable

_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT: Final = 15.0  # seconds for an answer


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to call it."""

    library: Any
    """The module `kubernetes`."""
    api: Any
    """Its client, with address and credentials."""
    namespace: str
    """Of this process."""


def cluster() -> Cluster:
    """The cluster of this process; raises Refused where there is none, or its library is missing."""
    try:
        import kubernetes  # noqa: PLC0415
    except ImportError:
        msg = "what talks to Kubernetes is not installed: pip install 'cropduster[kubernetes]'"
        raise Refused(msg) from None
    made = kubernetes.client.Configuration()
    made.retries = 1
    try:
        if _OWN_NAMESPACE.exists() and not os.environ.get("KUBECONFIG"):
            kubernetes.config.load_incluster_config(made)
            namespace = _OWN_NAMESPACE.read_text("ascii").strip()
        else:
            file = os.environ.get("KUBECONFIG")
            kubernetes.config.load_kube_config(file, client_configuration=made)
            current = kubernetes.config.list_kube_config_contexts(file)[1]
            namespace = current["context"].get("namespace", "default")
    except kubernetes.config.ConfigException as error:
        msg = f"this process runs in no Kubernetes, and KUBECONFIG names none: {error}"
        raise Refused(msg) from None
    return Cluster(kubernetes, kubernetes.client.ApiClient(made), namespace)


def secret(reference: str) -> str:
    """The text that a key of a secret holds.

    Args:
        reference: NAME/KEY in the namespace of this process, or NAMESPACE/NAME/KEY.

    Raises:
        Refused: there is none, it may not be read, or it holds no text.
        Unavailable: Kubernetes does not answer.
    """
    here = cluster()
    *namespaces, name, key = reference.split("/")
    namespace = namespaces[0] if namespaces else here.namespace
    core = here.library.client.CoreV1Api(here.api)
    with told(here, f"the secret {namespace}/{name}"):
        held = core.read_namespaced_secret(name, namespace, _request_timeout=_TIMEOUT).data or {}
    if key not in held:
        msg = f"the secret {namespace}/{name} of Kubernetes has no key {key}"
        raise Refused(msg, reference=reference)
    try:
        return base64.b64decode(held[key], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        msg = f"key {key} of the secret {namespace}/{name} of Kubernetes is not UTF-8 text"
        raise Refused(msg, reference=reference) from None


@contextmanager
def told(here: Cluster, what: str) -> Iterator[None]:
    """Raise Refused or Unavailable for what the library raises while something is asked for."""
    from urllib3.exceptions import HTTPError  # noqa: PLC0415  # which the library speaks through

    host = here.api.configuration.host
    try:
        yield
    except here.library.client.ApiException as error:
        why = {
            401: "it does not know this process",
            403: "it forbids that: the Role of the service account has to grant it",
            404: "it is not there",
        }
        msg = (
            f"{what} can't be had from the Kubernetes at {host}: {why.get(error.status, f'it answers {error.status}')}"
        )
        raise (Refused if error.status in why else Unavailable)(msg, host=host) from None
    except HTTPError as error:
        msg = f"{what} can't be had: the Kubernetes at {host} does not answer ({type(error).__name__})"
        raise Unavailable(msg, host=host) from None
