"""What is known of the call that a task handles, beside its principal: request id, deadline, idempotency
key."""

import time
from contextvars import ContextVar

REQUEST_ID_KEY = "x-request-id"
"""The metadata that carries a request id from hop to hop."""

IDEMPOTENCY_KEY = "idempotency-key"
"""The metadata that carries an idempotency key."""

AUTHORIZATION_KEY = "authorization"
"""The metadata that carries the bearer token."""

_request_id: ContextVar[str] = ContextVar("headrace_request_id", default="")
_deadline: ContextVar[float | None] = ContextVar("headrace_deadline", default=None)


def current_request_id() -> str:
    """Returns the id of the request that this task handles; empty outside of one."""
    return _request_id.get()


def set_request_id(request_id: str) -> None:
    """Says which request this task handles."""
    _request_id.set(request_id)


def set_deadline(deadline: float | None) -> None:
    """Says until when (by time.monotonic) the caller of this task waits."""
    _deadline.set(deadline)


def remaining_seconds() -> float | None:
    """Returns how long the caller of this task still waits, in seconds; None where nobody said so."""
    deadline = _deadline.get()
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)
