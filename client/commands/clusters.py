"""cluster status, scale: the file servers of a release of the chart, as Kubernetes tells."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from client.places import Problems
from client.session import Session, command
from client.words import WordError, parse_seconds

if TYPE_CHECKING:
    from client.cluster import Cluster, Status
    from client.shapes import JSON

_CONTEXT = Annotated[
    str | None, typer.Option(metavar="NAME", help="Take this context of the kubeconfig instead of its current one.")
]
_NAMESPACE = Annotated[
    str | None, typer.Option(metavar="NAME", help="Look in this namespace instead of that of the context.")
]
_RELEASE = Annotated[
    str | None, typer.Option(metavar="NAME", help="Take this release, where the namespace has several.")
]
_MOST = 1000


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "status")(status)
    command(app, "scale")(scale)


def status(session: Session, namespace: _NAMESPACE = None, release: _RELEASE = None, context: _CONTEXT = None) -> None:
    """Show how many file servers there are and shall be, and each of them."""
    _show(session, _cluster(context, namespace, release).status())


def scale(
    session: Session,
    replicas: Annotated[str, typer.Argument(metavar="N", help="How many there shall be.", show_default=False)],
    namespace: _NAMESPACE = None,
    release: _RELEASE = None,
    context: _CONTEXT = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long to wait until they are ready.")] = "5m",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is asked.")] = False,
) -> None:
    """Have so many file servers, and wait until they are ready; 0 stops all, and transfers stand until there is one."""
    problems = Problems()
    count = problems.parse("N", _parse_replicas, replicas, 0)
    seconds = problems.parse("--timeout", parse_seconds, timeout, 0.0)
    problems.check()
    cluster = _cluster(context, namespace, release)
    before = cluster.scale(count)
    if no_wait:
        session.show.note(f"{before.deployment} shall have {count} file servers; there were {before.wanted}")
        return
    last = before
    for last in cluster.settle(count, seconds):  # noqa: B007  # the last one is shown
        pass
    _show(session, last)


def _cluster(context: str | None, namespace: str | None, release: str | None) -> Cluster:
    from client.cluster import Cluster  # noqa: PLC0415  # not for help

    return Cluster(context or "", namespace or "", release or "")


def _show(session: Session, status: Status) -> None:
    if session.show.as_json:
        session.show.object(_shape(status))
        return
    told = f"{status.deployment} in {status.namespace}: {status.ready} of {status.wanted} ready"
    if status.autoscaler is not None:
        scaler = status.autoscaler
        told += f"; {scaler.name} scales it from {scaler.least} to {scaler.most}"
    session.show.line(told)
    session.show.table(
        ("pod", "phase", "ready", ">restarts", "node", "address", "started"),
        (
            (p.name, p.phase, "yes" if p.ready else "no", str(p.restarts), p.node, p.address, p.started)
            for p in status.pods
        ),
    )


def _shape(status: Status) -> dict[str, JSON]:
    return {**asdict(status), "pods": [asdict(pod) for pod in status.pods]}


def _parse_replicas(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > _MOST:
        msg = f"'{text}' is not a whole number between 0 and {_MOST}"
        raise WordError(msg)
    return int(text)
