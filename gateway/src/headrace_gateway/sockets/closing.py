"""How a WebSocket ends: the codes of RFC 6455, 7.4, and our own in the range for applications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError


@dataclass(frozen=True, slots=True)
class Closing:
    """A code, and a reason for people; at most 123 bytes of it are sent."""

    code: int
    reason: str


COMPLETE: Final = Closing(1000, "complete")
"""The last state was sent: there is no more to come."""

RESTARTING: Final = Closing(1012, "the gateway restarts; connect again")
"""The gateway goes away. The server itself sends it; it stands here for the documentation."""

EXPIRED: Final = Closing(4401, "the token has expired")
"""Connect again with a new one."""

FORBIDDEN: Final = Closing(4403, "the object may not be read any more")

GONE: Final = Closing(4404, "the object does not exist any more")

FAILED: Final = Closing(1011, "an unexpected failure")

CODES: Final = (
    (COMPLETE, "The last state was sent."),
    (FAILED, "An unexpected failure."),
    (RESTARTING, "The gateway restarts: connect again."),
    (EXPIRED, "The token has expired: connect again with a new one."),
    (FORBIDDEN, "The object may not be read any more."),
    (GONE, "The object does not exist any more."),
)
"""All of them with what they mean to a client."""

_OF_REASON: Final = {
    reasons_pb2.REASON_UNAUTHENTICATED: EXPIRED,
    reasons_pb2.REASON_ROLE_REQUIRED: FORBIDDEN,
    reasons_pb2.REASON_WORKSPACE_FORBIDDEN: FORBIDDEN,
    reasons_pb2.REASON_NOT_FOUND: GONE,
}


def closing_of(error: HeadraceError) -> Closing:
    """Returns how a stream that goes on already is closed for an error."""
    return _OF_REASON.get(error.reason, FAILED)
