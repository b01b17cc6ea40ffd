"""Starts that another service asks for: each is decided once, under a key that it chose."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from headrace_execution.domain.states import RunState

NAMED_PEERS = 20
"""How many live runs of the trigger a decision names."""


class StartOutcome(StrEnum):
    """What was decided of a start."""

    STARTED = "STARTED"
    HELD = "HELD"
    SKIPPED = "SKIPPED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there cannot be a run."""

    reason: str
    """A stable word, in UPPER_SNAKE."""
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of a start. It never changes."""

    key: str
    outcome: StartOutcome
    decided_at: datetime
    run: UUID | None = None
    reason: str = ""
    message: str = ""
    running: tuple[UUID, ...] = ()
    """Earlier runs of the trigger that were live, the oldest few."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands."""

    run: UUID
    state: RunState
    finished_at: datetime | None
    warning_count: int
    cancel_requested: bool
