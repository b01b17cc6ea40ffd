"""The log of a run: lines, the chunks in which workers send them, and what of a long one is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

NO_FIELDS: Mapping[str, str] = MappingProxyType({})

CHUNK_COST = 2048
"""What a chunk counts beside its bytes: many small ones cost the store as much as a few large ones."""


class Level(StrEnum):
    """How much a line matters."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `task` is empty and `attempt` 0 where it is about the run as a whole."""

    time: datetime
    level: Level
    message: str
    task: str = ""
    attempt: int = 0
    fields: Mapping[str, str] = field(default_factory=lambda: NO_FIELDS)


@dataclass(frozen=True, slots=True)
class Note:
    """A line about a run that execution itself writes, in the transaction of what it tells."""

    run: UUID
    line: LogLine
    position: int = 0
    """Grows with each note of a run; 0 while it is not stored."""


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """An attempt that may log, and how much of its log is stored."""

    tenant: UUID
    pipeline: UUID
    run: UUID
    stage: UUID
    fence: int
    last: int = -1
    """The sequence of the latest chunk."""
    lines: int = 0
    """How many lines it has logged, those that were left out included."""
    cost: int = 0
    """What all its chunks have cost, those that were left out included."""

    @property
    def key(self) -> tuple[UUID, int]:
        """Its stage and fence."""
        return self.stage, self.fence


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """Where a chunk of an attempt's log is."""

    run: UUID
    stage: UUID
    fence: int
    attempt: int
    sequence: int
    artifact: str
    """Its key in the artifact store."""
    lines: int
    bytes: int
    tasks: tuple[str, ...]
    """The tasks that its lines are about."""
    first_at: datetime
    last_at: datetime
    lines_total: int
    """How many lines the attempt has logged with it."""
    cost_total: int
    """What the attempt's log costs with it."""
    is_head: bool
    """It belongs to the beginning of the log, which is kept whatever comes."""

    @property
    def key(self) -> tuple[UUID, int]:
        """The attempt: its stage and fence."""
        return self.stage, self.fence


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much of the log of one attempt is kept. Of a longer one the middle is left out."""

    head: int
    """What its first chunks may cost, in bytes."""
    tail: int
    """What its latest chunks may cost, in bytes."""


def entry(
    place: LoggedAttempt,
    attempt: int,
    sequence: int,
    artifact: str,
    size: int,
    lines: Sequence[LogLine],
    limits: LogLimits,
) -> ChunkEntry:
    """The entry of the next chunk of an attempt."""
    cost_total = place.cost + size + CHUNK_COST
    times = [line.time for line in lines]
    return ChunkEntry(
        run=place.run,
        stage=place.stage,
        fence=place.fence,
        attempt=attempt,
        sequence=sequence,
        artifact=artifact,
        lines=len(lines),
        bytes=size,
        tasks=tuple(sorted({line.task for line in lines if line.task})),
        first_at=min(times),
        last_at=max(times),
        lines_total=place.lines + len(lines),
        cost_total=cost_total,
        is_head=cost_total <= limits.head,
    )


def expendable(latest: ChunkEntry, limits: LogLimits) -> int:
    """Chunks of the attempt that are not of its head and reach no further than this cost are left out."""
    return latest.cost_total - limits.tail


def gap(before: ChunkEntry | None, after: ChunkEntry) -> int:
    """How many lines are missing between two chunks of an attempt that follow one another."""
    known = before.lines_total if before is not None else 0
    return after.lines_total - after.lines - known
