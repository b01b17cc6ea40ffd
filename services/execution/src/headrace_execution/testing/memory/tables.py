"""The tables of execution."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace_execution.domain.alerts import Alert
from headrace_execution.domain.changes import OutputLanding
from headrace_execution.domain.deliveries import Delivery
from headrace_execution.domain.logs import ChunkEntry, Note
from headrace_execution.domain.rollups import Day, DayTotals
from headrace_execution.domain.run import Run
from headrace_execution.domain.starts import Decision
from headrace_execution.domain.tickets import StreamTicket
from headrace_execution.domain.usual import Usual
from headrace_execution.store.port import Probe, WorkerRecord
from headrace_execution.testing.memory.data import Table


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker and its lease."""

    record: WorkerRecord
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class CursorRow:
    """Where a load has come to."""

    value: bytes
    fence: int


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """A question, and what has become of it."""

    probe: Probe
    created_at: datetime
    expires_at: datetime
    state: str = "READY"
    fence: int = 0
    worker: UUID | None = None
    leased_at: datetime | None = None
    answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """A pipeline that takes no runs any more."""

    pipeline: UUID
    tenant: UUID
    purge_asked_at: datetime | None = None
    purged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """The last attempt at closing a pipeline that was refused."""

    attempt: int


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """An answer under an idempotency key."""

    body_hash: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class StartRow:
    """A key that a transaction has taken, and what it decided under it."""

    tenant: UUID
    key: str
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class OutputRow:
    """An output of a run, and when it landed."""

    output: OutputLanding
    landed_at: datetime


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A ticket that nobody has used yet."""

    ticket: StreamTicket
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery, when it is due next or since when it is given up, and why the last try failed."""

    delivery: Delivery
    due_at: datetime | None
    parked_at: datetime | None = None
    last_error: str | None = None


CursorKey = tuple[UUID, str, str]
Scope = tuple[UUID, str, str, str]

RUNS: Table[UUID, Run] = Table("runs")
RUN_OF_STAGE: Table[UUID, UUID] = Table("run_of_stage")
WORKERS: Table[UUID, WorkerRow] = Table("workers")
CURSORS: Table[CursorKey, tuple[CursorKey, CursorRow]] = Table("cursors")
PROBES: Table[UUID, ProbeRow] = Table("probes")
CLOSED: Table[UUID, ClosedRow] = Table("closed_pipelines")
REFUSED: Table[UUID, RefusedRow] = Table("refused_closings")
STARTS: Table[tuple[UUID, str], StartRow] = Table("starts")
ANSWERS: Table[Scope, AnswerRow] = Table("idempotency")
LOG_CHUNKS: Table[tuple[UUID, UUID, int, int], ChunkEntry] = Table("log_chunks")
NOTES: Table[tuple[UUID, int], Note] = Table("run_notes")
OUTPUTS: Table[tuple[UUID, str], OutputRow] = Table("outputs")
DAYS: Table[Day, DayTotals] = Table("pipeline_days")
TICKETS: Table[bytes, TicketRow] = Table("stream_tickets")
ALERTS: Table[UUID, Alert] = Table("alerts")
USUAL: Table[UUID, Usual] = Table("usual_runs")
DELIVERIES: Table[UUID, DeliveryRow] = Table("deliveries")
