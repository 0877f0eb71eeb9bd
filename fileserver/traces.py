"""Spans of OpenTelemetry for who collects traces: a transfer, its stages and its segments; nothing while off.

Every file server derives the id of the trace from that of the transfer, so that the spans of all of them are one trace
and nothing has to travel with a call. Sent by OTLP over HTTP (opentelemetry.io/docs/specs/otlp), in batches, beside the
work; a collector that is away costs spans and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from fileserver.errors import InvalidSpec
from fileserver.transfer.record import Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

Value = str | int | float | bool | list[str]

_EVERY_MS: Final = 2000
_tracers: list[Any] = []
"""Of this process, while it traces: one."""
_root: ContextVar[tuple[int, int] | None] = ContextVar("root", default=None)
"""The ids of trace and span that the next span must have, while the one of a transfer is made."""


def start(endpoint: str, exporter: SpanExporter | None = None) -> None:
    """Trace from now on.

    Args:
        endpoint: the address of a collector, like `http://127.0.0.1:4318`.
        exporter: what takes the spans instead.

    Raises:
        InvalidSpec: the library is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - if wanted
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415 - the same
    except ImportError:
        msg = "what sends traces is not installed: pip install 'cropduster[telemetry]'"
        raise InvalidSpec(msg, {"traces": msg}) from None

    class Ids(RandomIdGenerator):
        """Those of transfers are derived, all others random."""

        def generate_trace_id(self) -> int:
            given = _root.get()
            return given[0] if given else super().generate_trace_id()

        def generate_span_id(self) -> int:
            given = _root.get()
            return given[1] if given else super().generate_span_id()

    resource = Resource.create({"service.name": "cropduster", "service.version": version("cropduster")})
    provider = TracerProvider(resource=resource, id_generator=Ids(), shutdown_on_exit=False)
    taker = exporter or OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(taker, schedule_delay_millis=_EVERY_MS))
    _tracers[:] = [provider]


def stop() -> None:
    """Send what is left, and trace no more; blocking."""
    for provider in _tracers:
        provider.shutdown()
    _tracers.clear()


@contextmanager
def span(name: str, transfer: str, **facts: Value) -> Iterator[dict[str, Value]]:
    """A piece of the work on a transfer; what is put into the result is told with it, and so is what it raises."""
    more: dict[str, Value] = {}
    if not _tracers:
        yield more
        return
    from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - if wanted

    tracer = _tracers[0].get_tracer("cropduster")
    told = _named({"transfer": transfer, **facts})
    context = set_span_in_context(_whole(transfer))
    with tracer.start_as_current_span(name, context, attributes=told) as made:
        try:
            yield more
        finally:
            made.set_attributes(_named(more))


def ended(record: Record) -> None:
    """The span of a whole transfer, above those of its stages and segments; nothing for one that has not ended."""
    if not _tracers or record.ended is None:
        return
    from opentelemetry.context import Context  # noqa: PLC0415 - if wanted
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - the same

    outcome, verb = record.outcome or {}, record.spec["verb"]
    facts: dict[str, Value] = {
        "transfer": record.id,
        "verb": record.spec["kind"],
        "state": record.state,
        "bytes": record.progress.bytes_total,
        "bytes_native": record.progress.bytes_native,
        "bytes_through_us": record.progress.bytes_through_us,
        "routes": [each["route"] for each in outcome.get("routes", ())],
        "runs": record.run,
    }
    target = verb.get("target")
    plane = (
        record.plan.plane if record.plan else verb.get("plane") or (target["plane"] if isinstance(target, dict) else "")
    )
    token = _root.set(_ids(record.id))
    try:
        tracer = _tracers[0].get_tracer("cropduster")
        made = tracer.start_span(
            record.spec["kind"],
            Context(),
            attributes=_named({**facts, "plane": plane}),
            start_time=round(record.created * 1e9),
        )
    finally:
        _root.reset(token)
    if record.error is not None:
        made.set_status(Status(StatusCode.ERROR, str(record.error["reason"])))
    made.end(round(record.ended * 1e9))


def _ids(transfer: str) -> tuple[int, int]:
    """Those of the trace and of its first span."""
    digest = hashlib.sha256(transfer.encode()).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")


def _whole(transfer: str) -> Any:
    """The span of a transfer as those see it that are made before it."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags  # noqa: PLC0415 - if wanted

    trace, first = _ids(transfer)
    return NonRecordingSpan(SpanContext(trace, first, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))


def _named(facts: Mapping[str, Value]) -> dict[str, Value]:
    return {f"cropduster.{name}": value for name, value in facts.items()}
