"""How the events of runs decide what a pipeline shows of its latest run."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID


class Phase(IntEnum):
    """How far a run has come. A run never goes back, so of two facts about it the one further on is the
    later."""

    WAITING = 1
    RUNNING = 2
    ENDED = 3


@dataclass(frozen=True)
class RunFact:
    """What an event says of a run. `status` is the word that its pipeline shows: RUNNING, SUCCESS, …"""

    pipeline_id: UUID
    run_id: UUID
    status: str
    phase: Phase
    accepted_at: datetime
    finished_at: datetime | None

    @property
    def order(self) -> tuple[datetime, UUID, Phase]:
        """The run accepted last wins; of one run, the phase furthest on. Arrival order never counts."""
        return (self.accepted_at, self.run_id, self.phase)


def latest_by_pipeline(facts: Iterable[RunFact]) -> list[RunFact]:
    """The deciding fact of each pipeline, ordered by pipeline so that writers lock rows in one order."""
    latest: dict[UUID, RunFact] = {}
    for fact in facts:
        known = latest.get(fact.pipeline_id)
        if known is None or fact.order > known.order:
            latest[fact.pipeline_id] = fact
    return sorted(latest.values(), key=lambda fact: fact.pipeline_id)
