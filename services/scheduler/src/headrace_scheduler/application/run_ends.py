"""The ends of runs, as execution tells them."""

from dataclasses import dataclass
from uuid import UUID

from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import events_pb2

ENDS_OF_RUNS = tuple(f"io.headrace.run.{what}.v1" for what in ("completed", "failed", "cancelled"))
"""The types of their events."""


@dataclass(frozen=True)
class RunEnd:
    """A run that has ended, and whose it was."""

    tenant: UUID
    run: events_pb2.RunEvent

    @staticmethod
    def of(event: event_log_pb2.Event) -> "RunEnd":
        """Returns the end that an event tells of."""
        return RunEnd(UUID(event.tenant), events_pb2.RunEvent.FromString(event.data))
