"""What starts runs, and what a start does while earlier runs of the same trigger are live.

Live runs of a trigger are those of one pipeline with one trigger id that have not ended, held ones included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class TriggerKind(StrEnum):
    """What started a run."""

    MANUAL = "MANUAL"
    SCHEDULE = "SCHEDULE"
    BACKFILL = "BACKFILL"
    DEPENDENCY = "DEPENDENCY"
    RETRY = "RETRY"
    WEBHOOK = "WEBHOOK"


NEED_ACTIVE = frozenset({TriggerKind.SCHEDULE, TriggerKind.DEPENDENCY})
"""What starts only pipelines that are active."""


class Overlap(StrEnum):
    """What a start does while earlier runs of its trigger are live."""

    SKIP = "SKIP"
    QUEUE = "QUEUE"
    CANCEL_RUNNING = "CANCEL_RUNNING"


@dataclass(frozen=True, slots=True)
class Trigger:
    """What started a run."""

    kind: TriggerKind = TriggerKind.MANUAL
    id: str | None = None
    """The schedule, backfill or other thing that did; None where nothing but a caller did."""
    start_key: str | None = None
    """The key under which another service started it."""
    overlap: Overlap | None = None
    """Its rule; None means that it starts whatever else is live."""


MANUAL = Trigger()


@dataclass(frozen=True, slots=True)
class Peer:
    """A live run of a trigger."""

    id: UUID
    held: bool


class Turn(StrEnum):
    """What the overlap rule says of a start: the reason that is told with it, but for FREE."""

    FREE = "FREE"
    """It may go, as far as the rule is concerned."""
    OVERLAP_RUNNING = "OVERLAP_RUNNING"
    """Earlier runs are live."""
    OVERLAP_CANCELLING = "OVERLAP_CANCELLING"
    """Earlier runs were cancelled and have not ended."""
    QUEUE_FULL = "QUEUE_FULL"
    """As many are held as may be."""


def turn(overlap: Overlap | None, live: Sequence[Peer], queue_limit: int) -> tuple[Turn, bool]:
    """What a rule says of a start while these runs are live, and whether there is a run at all.

    For CANCEL_RUNNING the live ones are those that their cancel has not ended at once.
    """
    if overlap is None or not live:
        return Turn.FREE, True
    match overlap:
        case Overlap.SKIP:
            return Turn.OVERLAP_RUNNING, False
        case Overlap.QUEUE:
            if sum(peer.held for peer in live) >= queue_limit:
                return Turn.QUEUE_FULL, False
            return Turn.OVERLAP_RUNNING, True
        case Overlap.CANCEL_RUNNING:
            return Turn.OVERLAP_CANCELLING, True
