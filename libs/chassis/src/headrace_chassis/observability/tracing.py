"""Trace context (W3C): always carried from hop to hop, and exported by OpenTelemetry where that is
configured."""

import os
import re
from contextvars import ContextVar

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
    """Returns the context of a new trace (W3C Trace Context 3.2): not sampled, since nobody asked for it."""
    random_hex = os.urandom(24).hex()
    return f"00-{random_hex[:32]}-{random_hex[32:]}-00"
