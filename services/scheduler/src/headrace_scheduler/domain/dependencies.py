"""What pipelines that depend on others wait for, and what the ends of runs start. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class DependencyType(StrEnum):
    """What an upstream must have done."""

    STRONG = "STRONG"
    """Completed."""
    WEAK = "WEAK"
    """Ended, whatever its result."""


@dataclass(frozen=True)
class Dependency:
    """`downstream` depends on `upstream`."""

    id: UUID
    tenant: UUID
    workspace_id: UUID
    upstream: UUID
    downstream: UUID
    type: DependencyType
    created_at: datetime
    created_by: str


@dataclass(frozen=True, order=True)
class Interval:
    """A half-open interval of time."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Ended:
    """A run that has ended: COMPLETED, FAILED or CANCELLED."""

    run_id: UUID
    pipeline_id: UUID
    tenant: UUID
    state: str
    interval: Interval | None

    @property
    def is_success(self) -> bool:
        """Whether it completed."""
        return self.state == "COMPLETED"


@dataclass(frozen=True)
class Downstream:
    """A dependency as the end of a run of its upstream sees it."""

    dependency: Dependency
    upstreams: int
    """How many pipelines the downstream depends on."""
    strong: frozenset[UUID]
    """Those of them that must have completed."""


@dataclass(frozen=True)
class DependentStart:
    """A run that upstreams start, once a key."""

    key: str
    tenant: UUID
    pipeline_id: UUID
    upstream_run: UUID
    triggered_by: str
    interval: Interval | None


def started_by(
    ended: Ended, downstreams: Iterable[Downstream], completed: Collection[tuple[UUID, Interval]]
) -> Sequence[DependentStart]:
    """What the end of a run starts, of downstreams that have no schedule and are active.

    `completed` holds which pipelines have completed for which intervals, this run's included. Upstreams that
    run for intervals are joined on equal ones. A run for none, such as one by hand, starts those alone that
    depend on its pipeline and nothing else.
    """
    starts = []
    for each in downstreams:
        strong = each.dependency.type is DependencyType.STRONG
        if strong and not ended.is_success:
            continue
        if ended.interval is None:
            if each.upstreams != 1:
                continue
        elif strong and any((upstream, ended.interval) not in completed for upstream in each.strong):
            continue
        starts.append(_start(ended, each.dependency))
    return starts


def _start(ended: Ended, dependency: Dependency) -> DependentStart:
    interval = ended.interval
    what = f"{interval.start.isoformat()}/{interval.end.isoformat()}" if interval else f"run:{ended.run_id}"
    return DependentStart(
        key=f"dep:{dependency.downstream}:{what}",
        tenant=ended.tenant,
        pipeline_id=dependency.downstream,
        upstream_run=ended.run_id,
        triggered_by=dependency.created_by,
        interval=interval,
    )


def outcomes(ended: Iterable[Ended]) -> dict[tuple[UUID, Interval], Ended]:
    """The best end of each pipeline for each interval: the last one that completed, else the last one."""
    best: dict[tuple[UUID, Interval], Ended] = {}
    for each in ended:
        if each.interval is None:
            continue
        key = (each.pipeline_id, each.interval)
        if each.is_success or key not in best or not best[key].is_success:
            best[key] = each
    return best
