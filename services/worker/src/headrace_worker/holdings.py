"""What the worker holds: assignments that wait for a process, run, or have a result that the server has not
taken.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace.execution.v1 import workers_pb2

from headrace_worker.processes.frames import StopReason
from headrace_worker.processes.pool import StageProcess


class Phase(enum.Enum):
    """How far a held assignment is."""

    WAITING = "waiting"
    """Accepted; no process has it yet."""
    RUNNING = "running"
    """A process works on it."""
    FINISHED = "finished"
    """Its result is repeated until the server has taken it."""


@dataclass(eq=False)
class Holding:
    """One assignment that the worker holds, under one fence."""

    assignment: workers_pb2.Assignment
    accepted_at: float
    """When it came, by the supervisor's clock."""
    phase: Phase = Phase.WAITING
    process: StageProcess | None = None
    stop: StopReason | None = None
    progress: workers_pb2.AssignmentProgress | None = None
    result: workers_pb2.AssignmentResult | None = None
    sent_at: float = float("-inf")
    """When the result was last sent."""
    outputs: set[str] = field(default_factory=set)
    """The keys of outputs that it has had kept."""
    keeping: asyncio.Task[None] | None = None
    """What keeps an output of it at the moment."""
    settling: bool = False
    """It was cancelled and had to be killed: a second process sees to it that nothing of it can land."""
    kill_timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def ref(self) -> workers_pb2.AssignmentRef:
        """Its identity and fence."""
        return self.assignment.ref

    def cancel_kill(self) -> None:
        """Nobody needs to be killed any more."""
        if self.kill_timer is not None:
            self.kill_timer.cancel()
            self.kill_timer = None


class Holdings:
    """All that is held, by assignment: a newer fence of an assignment replaces an older one."""

    def __init__(self) -> None:
        self._held: dict[str, Holding] = {}

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def get(self, assignment_id: str) -> Holding | None:
        """What is held of an assignment, under whatever fence."""
        return self._held.get(assignment_id)

    def find(self, ref: workers_pb2.AssignmentRef) -> Holding | None:
        """What is held under exactly this fence."""
        holding = self._held.get(ref.assignment_id)
        return holding if holding is not None and holding.ref.fence == ref.fence else None

    def add(self, holding: Holding) -> None:
        """Hold it, instead of what was held of the same assignment."""
        self._held[holding.ref.assignment_id] = holding

    def drop(self, holding: Holding) -> None:
        """Hold it no longer."""
        if self._held.get(holding.ref.assignment_id) is holding:
            del self._held[holding.ref.assignment_id]

    def refs(self) -> list[workers_pb2.AssignmentRef]:
        """All that is held, as the protocol names it."""
        return [holding.ref for holding in self._held.values()]

    def in_phase(self, phase: Phase) -> list[Holding]:
        """Those that are so far."""
        return [holding for holding in self._held.values() if holding.phase is phase]
