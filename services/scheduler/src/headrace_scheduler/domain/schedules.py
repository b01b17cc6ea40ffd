"""What a schedule is: its terms, which users or its pipeline set, and its progress, which ticks move."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

DEFAULT_QUEUE_LIMIT = 100


class Status(StrEnum):
    """Whether a schedule starts runs."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


class ManagedBy(StrEnum):
    """Who sets the terms of a schedule."""

    USER = "USER"
    PIPELINE = "PIPELINE"


class Overlap(StrEnum):
    """What a tick does while an earlier run of its schedule is live; execution decides it."""

    SKIP = "SKIP"
    QUEUE = "QUEUE"
    CANCEL_RUNNING = "CANCEL_RUNNING"


class Catchup(StrEnum):
    """What becomes of missed ticks."""

    SKIP_TO_CURRENT = "SKIP_TO_CURRENT"
    RUN_ALL = "RUN_ALL"
    RUN_LATEST_N = "RUN_LATEST_N"


@dataclass(frozen=True)
class Window:
    """A maintenance window as it was given: `start` and `end` once, or `days` (MON, …), `from_time` and
    `to_time` (HH:MM) every week. Whether it makes sense is for `timing` to say."""

    start: datetime | None = None
    end: datetime | None = None
    days: tuple[str, ...] = ()
    from_time: str = ""
    to_time: str = ""


@dataclass(frozen=True)
class Times:
    """What decides when a schedule ticks, and which ticks count."""

    cron_expression: str
    timezone: str
    business_days_only: bool = False
    skip_holidays: bool = False
    country: str | None = None
    subdivision: str | None = None
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Terms:
    """All that is set of a schedule. `parameters` is a JSON object as text."""

    times: Times
    overlap: Overlap = Overlap.SKIP
    queue_limit: int = DEFAULT_QUEUE_LIMIT
    catchup: Catchup = Catchup.SKIP_TO_CURRENT
    catchup_limit: int | None = None
    parameters: str = "{}"


@dataclass(frozen=True)
class Change:
    """What an update asks for: fields of Terms and Times given anew, and such fields to clear."""

    given: Mapping[str, Any] = field(default_factory=dict)
    cleared: frozenset[str] = frozenset()

    def touches(self, name: str) -> bool:
        """Whether it says anything of a field."""
        return name in self.given or name in self.cleared

    def after(self, before: Terms) -> Terms:
        """The terms with this change."""
        wanted = {**{name: _EMPTY[name] for name in self.cleared}, **self.given}
        times = {name: value for name, value in wanted.items() if name in _TIMES}
        rest = {name: value for name, value in wanted.items() if name not in _TIMES}
        if "catchup" in rest and rest["catchup"] is not Catchup.RUN_LATEST_N:
            rest.setdefault("catchup_limit", None)  # the number goes with the strategy that it is for
        if "overlap" in rest and rest["overlap"] is not Overlap.QUEUE:
            rest.setdefault("queue_limit", DEFAULT_QUEUE_LIMIT)
        return replace(before, times=replace(before.times, **times), **rest)


CLEARABLE: Mapping[str, Any] = {
    "country": None,
    "subdivision": None,
    "windows": (),
    "parameters": "{}",
    "catchup_limit": None,
}
"""The fields that a null clears, and what they are then."""

_EMPTY = CLEARABLE
_TIMES = frozenset(Times.__dataclass_fields__)


@dataclass(frozen=True)
class Workspace:
    """What the scheduler knows of a workspace: what the calendars of its schedules begin from."""

    id: UUID
    tenant: UUID
    timezone: str = "UTC"
    country: str | None = None
    subdivision: str | None = None
    holidays: tuple[date, ...] = ()


@dataclass(frozen=True)
class Reprieve:
    """Ticks up to `until` were missed while the schedule was off, and are decided by what was said when it
    was turned on again."""

    until: datetime
    catchup: Catchup
    limit: int | None
    reason: str
    """Why they were missed: PAUSED or PIPELINE_INACTIVE."""


@dataclass(frozen=True)
class Progress:
    """How far the ticks of a schedule are decided, and when it must be looked at again."""

    decided_until: datetime
    """All ticks up to here are decided, once and for all."""
    pipeline_active: bool = True
    reprieve: Reprieve | None = None
    next_due: datetime | None = None
    """When something is to be decided; None where nothing ever is, or the schedule is off."""
    next_run_at: datetime | None = None
    """When the next run starts, as far as is known."""
    held_until: datetime | None = None
    """The end of the maintenance that holds ticks now."""
    starting: bool = False
    """Ticks that were decided to run are being started; no others are decided until those have been."""


@dataclass(frozen=True)
class LastTick:
    """What came of the latest decided tick."""

    at: datetime
    through: datetime
    state: str
    reason: str | None
    message: str | None
    run_id: UUID | None
    decided_at: datetime


@dataclass(frozen=True)
class Schedule:
    """A schedule as it stands."""

    id: UUID
    tenant: UUID
    workspace_id: UUID
    pipeline_id: UUID
    managed_by: ManagedBy
    version: int
    status: Status
    terms: Terms
    progress: Progress
    created_at: datetime
    updated_at: datetime
    created_by: str
    own_holidays: tuple[date, ...] = ()
    """The holidays of its workspace."""
    last_tick: LastTick | None = None

    @property
    def is_on(self) -> bool:
        """Whether it starts runs."""
        return self.status is Status.ACTIVE and self.progress.pipeline_active
