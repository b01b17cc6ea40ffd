"""Trace context (W3C): always carried from hop to hop, and exported by OpenTelemetry where that is
configured.

OpenTelemetry is imported only then: it costs memory and time at start that an installation without traces
should not pay.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

TRACEPARENT_KEY = "traceparent"
"""The metadata and header that carries the trace context."""

_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_traceparent: ContextVar[str] = ContextVar("headrace_traceparent", default="")


def current_traceparent() -> str:
    """Returns the trace context of what this task does; empty outside of a trace."""
    return _traceparent.get()


def set_traceparent(traceparent: str) -> None:
    """Says to which trace this task belongs."""
    _traceparent.set(traceparent)


def current_trace_id() -> str:
    """Returns the 32 hex digits that all parts of this trace share; empty outside of a trace."""
    return _traceparent.get()[3:35]


def accepted_or_new(traceparent: str) -> str:
    """Returns a trace context as it was given, or that of a new trace where it is absent or malformed."""
    return traceparent if _FORM.fullmatch(traceparent) else new_traceparent()


def new_traceparent() -> str:
    """Returns the context of a new trace (W3C Trace Context 3.2), sampled where traces are exported."""
    random_hex = os.urandom(24).hex()
    return f"00-{random_hex[:32]}-{random_hex[32:]}-{'01' if is_exporting() else '00'}"


class _Exporter:
    """The process's tracer; there is one or none, set once by `configure`."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self.provider: TracerProvider | None = None


_exporter = _Exporter()


def configure(service: str, endpoint: str) -> None:
    """Sends spans to an OTLP endpoint (gRPC) from now on, in batches and in the background."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    insecure = not endpoint.startswith("https://")
    export_to(service, BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=insecure)))


def export_to(service: str, processor: Any) -> None:
    """Gives spans to an OpenTelemetry span processor from now on."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(resource=Resource.create({"service.name": f"headrace-{service}"}))
    provider.add_span_processor(processor)
    _exporter.provider = provider
    _exporter.tracer = provider.get_tracer("headrace")


def shut_down() -> None:
    """Sends what is left and stops exporting."""
    if _exporter.provider is not None:
        _exporter.provider.shutdown()
    _exporter.provider = _exporter.tracer = None


def is_exporting() -> bool:
    """Tells whether spans are exported."""
    return _exporter.tracer is not None


@contextmanager
def server_span(name: str, parent: str) -> "Iterator[Span]":
    """Makes a span of what is done in the block, as the child of the given context, and the current context
    of it."""
    from opentelemetry.trace import SpanKind

    span = _begin(name, parent, SpanKind.SERVER)
    before = _traceparent.set(_of(span))
    try:
        yield span
    finally:
        _traceparent.reset(before)
        span.end()


class ClientSpan:
    """What an outgoing call carries; where spans are exported, one that ends with the call."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, traceparent: str, span: "Span | None") -> None:
        self.traceparent = traceparent
        self._span = span

    @property
    def is_exported(self) -> bool:
        """Whether `end` must be called."""
        return self._span is not None

    def end(self, _call: object = None) -> None:
        """Ends the span; fits a call's `add_done_callback`."""
        if self._span is not None:
            self._span.end()


def client_span(name: str) -> ClientSpan:
    """Begins an outgoing call within the current trace."""
    current = _traceparent.get()
    if _exporter.tracer is None or not current:
        return ClientSpan(current, None)
    from opentelemetry.trace import SpanKind

    span = _begin(name, current, SpanKind.CLIENT)
    return ClientSpan(_of(span), span)


def _begin(name: str, parent: str, kind: Any) -> "Span":
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = _exporter.tracer
    if tracer is None:
        raise RuntimeError("no spans are exported")
    context = TraceContextTextMapPropagator().extract({TRACEPARENT_KEY: parent})
    return tracer.start_span(name, context=context, kind=kind, attributes={"rpc.system": "grpc"})


def _of(span: "Span") -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
