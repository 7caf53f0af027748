"""Spans of what this edge did, for OpenTelemetry: one for each exchange, and one for each cluster that was asked.

Off by default, and then nothing of OpenTelemetry is imported and nothing here is called. On, a span is made of what is
known anyhow when it is over (an `Outcome`, an `Attempted`), so that no library is on anybody's way; it is sent from a
thread of the exporter's own, out of a queue with a bound (rule 7). Keeps rule 8: a span says what was done and how long
it took, never what was said.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgecache.cache.status import Outcome
from edgecache.cache.trace import SAMPLED, Trace
from edgecache.errors import SettingsError
from edgecache.fill.traced import Attempted
from edgecache.ops.tracing import REMEDY, Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.trace import SpanContext, SpanKind

#: Where a collector takes traces, if the endpoint names no path (OTLP/HTTP).
_TRACES = "/v1/traces"
Value = str | bool | int | float


class Tracer:
    """Makes spans, and hands them over. `close` may take a while: not on the event loop."""

    def __init__(self, settings: Tracing, node: str, processor: "SpanProcessor | None" = None) -> None:
        """processor: takes the spans; None: what the settings say. SettingsError: OpenTelemetry is not installed."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: F401 - not first when a span is told, which would be late
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        named: dict[str, str] = {"service.instance.id": node, "service.version": version("edgecache")}
        self._resource = Resource.create({"service.name": "edgecache", **named})
        self._scope = InstrumentationScope("edgecache", version("edgecache"))
        self._ratio = settings.sample_ratio
        self._processor = processor or _processor(settings)

    def begin(self, given: Trace | None) -> Trace:
        """A span of our own, within the one that was given, if one was."""
        span_id = _id(64)
        if given is not None:
            return given.child(span_id)
        return Trace(_id(128), span_id, SAMPLED if random.random() < self._ratio else 0)

    def exchange(self, outcome: Outcome) -> None:
        """One exchange is over."""
        ended_ns, trace = time.time_ns(), outcome.trace
        if trace is None or not trace.sampled:
            return
        from opentelemetry.trace import SpanKind

        attributes: dict[str, Value] = {
            "http.request.method": outcome.method,
            "http.route": outcome.route,
            "http.response.status_code": outcome.status,
            "http.response.body.size": outcome.sent_bytes,
            "edgecache.cache": outcome.result.value,
            "edgecache.cluster": outcome.cluster,
            "edgecache.first_byte_ms": outcome.first_byte_ms,
            "edgecache.request_id": outcome.request_id,
            "edgecache.whole": outcome.whole,
        }
        failed = outcome.error if outcome.status >= 500 or not outcome.whole else ""
        self._tell(
            f"{outcome.method} {outcome.route}",
            trace,
            SpanKind.SERVER,
            _Span(ended_ns, outcome.total_ms / 1000, attributes, failed),
        )

    def asked(self, attempt: Attempted) -> None:
        """A cluster was asked, and that is over."""
        ended_ns = time.time_ns()
        from opentelemetry.trace import SpanKind

        attributes: dict[str, Value] = {"edgecache.cluster": attempt.cluster, "edgecache.upstream": attempt.upstream}
        if attempt.first_audio_s is not None:
            attributes["edgecache.first_audio_ms"] = attempt.first_audio_s * 1000
        span = _Span(ended_ns, attempt.took_s, attributes, attempt.failure)
        self._tell(f"ask {attempt.cluster}", attempt.trace, SpanKind.CLIENT, span)

    def close(self) -> None:
        """Sends what still waits, and stops."""
        self._processor.shutdown()

    def _tell(self, name: str, trace: Trace, kind: "SpanKind", span: "_Span") -> None:
        self._processor.on_end(self._made(name, trace, kind, span))

    def _made(self, name: str, trace: Trace, kind: "SpanKind", span: "_Span") -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Status, StatusCode

        attributes = {key: value for key, value in span.attributes.items() if value != ""}
        if span.failure:
            attributes["error.type"] = span.failure
        return ReadableSpan(
            name,
            context=_context(trace, trace.span_id),
            parent=_context(trace, trace.parent_id) if trace.parent_id else None,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR if span.failure else StatusCode.UNSET),
            start_time=span.ended_ns - int(span.took_s * 1e9),
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


@dataclass(frozen=True, slots=True)
class _Span:
    """What is told of one, besides whose it is."""

    ended_ns: int
    took_s: float
    attributes: Mapping[str, Value]
    failure: str


def tracer(settings: Tracing, node: str) -> Tracer | None:
    """Who tells of spans; None: nobody does. SettingsError: what it takes is not installed."""
    if settings.exporter == "off":
        return None
    try:
        return Tracer(settings, node)
    except ImportError as error:
        raise SettingsError(
            f"tracing.exporter is {settings.exporter}, and OpenTelemetry is not installed: {REMEDY}"
        ) from error


def both(
    first: Callable[[Outcome], None] | None, second: Callable[[Outcome], None] | None
) -> Callable[[Outcome], None] | None:
    """Tells one and the other, as far as there are any."""
    if first is None or second is None:
        return first or second

    def tell(outcome: Outcome) -> None:
        first(outcome)
        second(outcome)

    return tell


def _id(bits: int) -> str:
    """Random, and not 0 (W3C Trace Context §3.2.2.3)."""
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"


def _context(trace: Trace, span_id: str) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    state = TraceState.from_header([trace.state]) if trace.state else None
    return SpanContext(int(trace.trace_id, 16), int(span_id, 16), False, TraceFlags(trace.flags), state)


def _processor(settings: Tracing) -> "SpanProcessor":
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

    if settings.exporter == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter())
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # one that can't be reached is told once a batch
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=_endpoint(settings.endpoint)))


def _endpoint(given: str | None) -> str | None:
    if given is None:
        return None
    return given if urlsplit(given).path.strip("/") else given.rstrip("/") + _TRACES
