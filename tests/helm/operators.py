"""Schemas of what operators add to Kubernetes, as far as the chart uses it, after what they publish of their resources.

ServiceMonitor and PrometheusRule: the API reference of the Prometheus operator, monitoring.coreos.com/v1. Certificate:
that of cert-manager, cert-manager.io/v1.
"""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_DURATION: Final = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_SELECTOR: Final = _object("matchLabels", matchLabels=_TEXTS)
_METADATA: Final = _object("name namespace labels", name=_TEXT, namespace=_TEXT, labels=_TEXTS)
_ALERT: Final = _object("alert expr", alert=_TEXT, expr=_TEXT, **{"for": _DURATION}, labels=_TEXTS, annotations=_TEXTS)
_RECORD: Final = _object("record expr", record=_TEXT, expr=_TEXT, labels=_TEXTS)
_ISSUER: Final = _object("name", name=_TEXT, kind=_TEXT, group=_TEXT)
_KEY: Final = _object(
    "",
    algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]},
    size={"enum": [256, 384, 521, 2048, 4096, 8192]},
    encoding={"enum": ["PKCS1", "PKCS8"]},
    rotationPolicy={"enum": ["Never", "Always"]},
)
_USAGE: Final = {"enum": ["digital signature", "key encipherment", "server auth", "client auth"]}
_CERTIFICATE: Final = _object(
    "secretName issuerRef dnsNames",
    secretName=_TEXT,
    issuerRef=_ISSUER,
    dnsNames=_list(_TEXT),
    privateKey=_KEY,
    duration=_DURATION,
    renewBefore=_DURATION,
    usages=_list(_USAGE),
)
_SPECS: Final = {
    ("cert-manager.io/v1", "Certificate"): _CERTIFICATE,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _object(
        "selector endpoints", selector=_SELECTOR, endpoints=_list(_object("port", port=_TEXT, interval=_DURATION))
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _object(
        "groups", groups=_list(_object("name rules", name=_TEXT, rules=_list({"anyOf": [_ALERT, _RECORD]})))
    ),
}
SCHEMAS: Final = {
    key: _object("apiVersion kind metadata spec", apiVersion=_TEXT, kind=_TEXT, metadata=_METADATA, spec=spec)
    for key, spec in _SPECS.items()
}
"""By apiVersion and kind."""
