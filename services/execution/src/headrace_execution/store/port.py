"""What the service asks of its store. The SQL behind it is one implementation; a conformance suite holds
any to it.

All operations take batches. Everything within `Store.run` is one transaction; what it locks stays locked
to its end, in this order, so that no two transactions wait for one another: keys of starts, then gates, then
alerts, then runs (by id), then limits, then claims.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar
from uuid import UUID

from headrace_chassis.idempotency import IdempotencyKey, Lookup

from headrace_execution.domain.changes import CursorMove, OutputLanding, RunChanged
from headrace_execution.domain.logs import ChunkEntry, LoggedAttempt, Note
from headrace_execution.domain.rollups import DayTotals
from headrace_execution.domain.run import Run, StandingCursor, StopReason
from headrace_execution.domain.starts import Decision, Standing
from headrace_execution.domain.states import RunState
from headrace_execution.domain.tickets import StreamTicket
from headrace_execution.domain.triggers import Peer, Trigger
from headrace_execution.store.alerts_port import Alerts
from headrace_execution.store.deliveries_port import Deliveries

T = TypeVar("T")
TriggerKey: TypeAlias = tuple[UUID, str]
"""A pipeline, and the id of a trigger that starts runs of it."""


class ConcurrentChange(Exception):  # noqa: N818 - it names a fact
    """A guarded write found another state than was read: somebody wrote without the lock."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A ready stage whose run is locked for the one who claimed it, with the fence to hand it out under."""

    run: UUID
    stage: UUID
    fence: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A stage or probe in a worker's hands."""

    worker: UUID
    assignment: UUID
    run: UUID | None
    """None for a probe."""
    fence: int
    leased_at: datetime
    stop: StopReason | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """What came of closing a pipeline."""

    is_closed: bool
    live: list[UUID]
    """Runs that are live yet."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as it said hello."""

    id: UUID
    name: str
    slots: int
    version: str
    engines: tuple[str, ...]


class ProbeKind(StrEnum):
    """What a probe does."""

    TEST = "TEST"
    TABLES = "TABLES"
    DRY_RUN = "DRY_RUN"


@dataclass(frozen=True, slots=True)
class Probe:
    """A question about connections, for a worker."""

    id: UUID
    tenant: UUID
    workspace: UUID
    kind: ProbeKind
    connections: tuple[str, ...]
    """Names or ids of those that the worker gets, with their secrets."""
    payload: bytes
    """For DRY_RUN the assignment, as far as it is known before somebody takes it, in protobuf's JSON."""
    on_behalf_of: str


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None does not narrow."""

    tenant: UUID
    workspaces: frozenset[UUID] | None = None
    pipeline: UUID | None = None
    state: RunState | None = None
    trigger_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a list."""

    id: UUID
    workspace: UUID
    pipeline: UUID
    pipeline_version: int | None
    state: RunState
    engine: str
    task_count: int
    warning_count: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    triggered_by: str
    summary: str | None
    cancel_requested: bool
    trigger: Trigger
    logical_date: datetime
    interval_start: datetime | None
    interval_end: datetime | None


@dataclass(frozen=True, slots=True)
class SecretHolder:
    """Whose secrets an assignment may have."""

    tenant: UUID
    workspace: UUID
    connections: tuple[str, ...]
    on_behalf_of: str


class Runs(Protocol):
    """Runs with their stages and tasks."""

    async def insert(self, runs: Sequence[Run]) -> None:
        """Adds new runs, and their recipes where they are not there yet."""

    async def lock(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """The runs that exist, locked for this transaction."""

    async def lock_idle_of(self, stage_ids: Collection[UUID]) -> dict[UUID, Run]:
        """The runs that these stages belong to and that nobody else has locked."""

    async def lock_idle(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """Those that nobody else has locked."""

    async def lock_of(self, stage_ids: Collection[UUID]) -> dict[UUID, Run]:
        """The runs that these stages belong to, locked, by run id."""

    async def claim(self, limit: int) -> tuple[list[Claim], dict[UUID, Run]]:
        """Up to so many ready stages, settlements first, then by priority and age; and their runs, which are
        locked.

        Of stages that use connections with limits only as many as may run beside those that are leased; all
        of them wait while another transaction claims such stages. Settlements are free of these limits.

        Stages of runs that others have locked are passed over. A stage may have changed before its run was
        locked: the run tells.
        """

    async def save(self, changes: Sequence[tuple[Run, Run]]) -> None:
        """Writes what differs between each run as it was locked and as it is now. Raises ConcurrentChange."""

    async def fences(self, count: int, *, unless_ready: bool = False) -> list[int]:
        """So many new fences, growing, above all before; none if it is asked so and a stage waits for a
        slot and for nothing else."""

    async def due(self, limit: int) -> list[UUID]:
        """Runs of which something is due, the longest overdue first."""

    async def leases(self, workers: Collection[UUID]) -> list[Lease]:
        """The stages in the hands of these workers."""

    async def expired(self, limit: int) -> list[Lease]:
        """Stages in the hands of workers whose lease has run out, or that are not known at all."""

    async def stops(self, workers: Collection[UUID]) -> list[Lease]:
        """The stages in the hands of these workers that are to be stopped."""

    async def ids_of(self, pipeline: UUID, limit: int) -> list[UUID]:
        """Live runs of a pipeline, oldest first."""

    async def live_of(self, triggers: Collection[TriggerKey]) -> dict[TriggerKey, list[Peer]]:
        """Live runs of each of these triggers, oldest first; none of those that have none."""

    async def live_of_roots(self, roots: Collection[UUID]) -> dict[UUID, UUID]:
        """A live run of each of these chains of retries that has one, by the chain's first run."""


class Pipelines(Protocol):
    """What is kept of a pipeline as a whole."""

    async def enter(self, pipelines: Collection[UUID]) -> frozenset[UUID]:
        """Takes the gates of pipelines so that none can close before this transaction ends; returns the
        closed ones.
        """

    async def close(
        self, pipeline: UUID, tenant: UUID, *, attempt: int, despite_live: bool, limit: int
    ) -> Closing:
        """Waits for acceptances under way, then closes a pipeline for good, unless runs of it are live and
        it is not to be closed despite them; such a refusal holds for the attempt and for all before it
        (attempt 0 is not remembered). Names live runs, up to the limit."""

    async def live_counts(self, pipelines: Collection[UUID]) -> dict[UUID, int]:
        """Takes the limits of pipelines for this transaction and counts the live runs of each that are not
        held.
        """

    async def held(self, pipeline: UUID, limit: int) -> list[UUID]:
        """Held runs of a pipeline in the order in which they go; call it with the limit taken.

        Of those that an overlap rule lets go one after another only the one whose turn it is: the oldest of
        its trigger, where no other run of the trigger is live that is not held.
        """

    async def pipelines_with_held(self, limit: int) -> list[UUID]:
        """Pipelines of which a run is held."""

    async def cursors(
        self, loads: Collection[tuple[UUID, str]]
    ) -> dict[tuple[UUID, str], list[StandingCursor]]:
        """The cursors of loads, given as pipeline and sink."""

    async def move_cursors(self, moves: Sequence[CursorMove]) -> None:
        """Moves cursors forward: one that a higher fence has moved already stays."""

    async def ask_purge(self, pipelines: Mapping[UUID, UUID]) -> None:
        """Closes deleted pipelines (with their tenants) and notes that all that is kept of them is to go."""

    async def to_purge(self, limit: int) -> list[tuple[UUID, UUID]]:
        """Pipelines to purge, with their tenants."""

    async def purge(self, pipeline: UUID, limit: int) -> bool:
        """Removes up to so many runs of a pipeline, and everything else when none is left; whether that is
        so.
        """

    async def purged(self, pipeline: UUID) -> None:
        """Notes that the purge was acknowledged."""

    async def forget_purged(self, age: timedelta, limit: int) -> int:
        """Removes the notes of pipelines that were purged so long ago; returns how many."""


class Workers(Protocol):
    """Workers and their leases."""

    async def hello(self, worker: WorkerRecord, lease: timedelta) -> bool:
        """Registers a worker, or registers it again; returns False where its id belongs to one of another
        name.
        """

    async def renew(self, workers: Collection[UUID], lease: timedelta) -> frozenset[UUID]:
        """Renews leases; returns the workers that are registered."""

    async def forget(self, age: timedelta, limit: int) -> int:
        """Removes workers whose lease ran out so long ago and that hold nothing; returns how many."""

    async def secrets_of(self, worker: UUID, name: str, assignment: UUID, fence: int) -> SecretHolder | None:
        """What a worker of that name may know, if its lease is valid and it holds the assignment under
        this fence.
        """


class Probes(Protocol):
    """Questions about connections."""

    async def insert(self, probe: Probe, life: timedelta) -> None:
        """Adds a question that nobody waits for any more after `life`."""

    async def claim(self, workers: Sequence[UUID]) -> list[tuple[Probe, Lease]]:
        """Hands out up to one question for each worker in the list, oldest first."""

    async def leases(self, workers: Collection[UUID]) -> list[Lease]:
        """The questions in the hands of these workers."""

    async def expired(self, limit: int) -> list[Lease]:
        """Questions in the hands of workers whose lease has run out, or that are not known at all."""

    async def offer_again(self, leases: Sequence[Lease]) -> None:
        """Takes questions back from workers that do not have them."""

    async def answer(self, worker: UUID, probe: UUID, fence: int, answer: bytes) -> bool:
        """Stores an answer, if the worker holds the question; whether it did."""

    async def answers(self, probes: Collection[UUID]) -> dict[UUID, bytes]:
        """The answers that are there."""

    async def remove(self, probe: UUID) -> bool:
        """Removes a question that nobody waits for any more; returns whether a worker had taken it."""

    async def forget(self, limit: int) -> int:
        """Removes questions that have expired; returns how many."""


class Answers(Protocol):
    """Answers under idempotency keys."""

    async def lookup(self, keys: Sequence[IdempotencyKey]) -> list[Lookup]:
        """Locks keys for this transaction and tells how each stands."""

    async def store(self, answers: Sequence[tuple[IdempotencyKey, bytes]]) -> None:
        """Stores the answers of new keys."""


class Starts(Protocol):
    """Decisions on starts that other services asked for."""

    async def take(self, tenant: UUID, keys: Collection[str]) -> dict[str, Decision]:
        """Takes keys for this transaction, after others that have them; returns what was decided under them.

        Those that nothing was decided under are to be decided by the same transaction.
        """

    async def decide(self, tenant: UUID, decisions: Sequence[Decision]) -> None:
        """Keeps decisions under keys that this transaction has taken."""

    async def forget(self, age: timedelta, limit: int) -> int:
        """Removes decisions that were made so long ago; returns how many."""


@dataclass(frozen=True, slots=True)
class LogIndex:
    """What there is of the log of a run: chunks by stage, fence and sequence, notes as they were written."""

    chunks: tuple[ChunkEntry, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Whose the artifacts of a run are."""

    tenant: UUID
    pipeline: UUID
    run: UUID


class Logs(Protocol):
    """The index of logs, and when outputs have landed. Attempts are named by their stage and fence."""

    async def attempts(self, attempts: Collection[tuple[UUID, int]]) -> dict[tuple[UUID, int], LoggedAttempt]:
        """Those of them that were ever handed out, of stages that are still there."""

    async def add(self, entries: Sequence[ChunkEntry]) -> frozenset[str]:
        """Adds chunks; one that is there already, or whose run is gone, is left out. Returns the artifacts
        of those that were added.
        """

    async def trim(self, costs: Mapping[tuple[UUID, UUID, int], int]) -> list[str]:
        """Removes the chunks of attempts (run, stage, fence) that are not of the head and reach no further
        than a cost; returns their artifacts.
        """

    async def note(self, notes: Sequence[Note]) -> None:
        """Adds notes to runs that this transaction has locked or made."""

    async def landed(self, outputs: Sequence[OutputLanding]) -> None:
        """Remembers when outputs of runs have landed that this transaction has locked."""

    async def expired_logs(self, age: timedelta, limit: int) -> list[RunPlace]:
        """Runs of whose logs all parts are older than this, the oldest first."""

    async def expired_outputs(self, age: timedelta, limit: int) -> list[RunPlace]:
        """Runs all of whose outputs landed so long ago, the oldest first."""

    async def forget_logs(self, runs: Collection[UUID]) -> None:
        """Removes the index of logs and the notes of runs."""

    async def forget_outputs(self, runs: Collection[UUID]) -> None:
        """Removes what is remembered of the outputs of runs."""


class Tickets(Protocol):
    """One-time tickets for the streams of runs, by their hashes."""

    async def add(self, digest: bytes, ticket: StreamTicket, life: timedelta) -> None:
        """Adds a ticket that is good for `life`."""

    async def take(self, digest: bytes) -> StreamTicket | None:
        """Takes a ticket away and returns it, if it is still good; of several who ask, one gets it."""


class Rollups(Protocol):
    """What the runs of pipelines come to, day by day."""

    async def add(self, days: Sequence[DayTotals]) -> None:
        """Adds totals to those of their days. Whoever adds holds the position of the log that the runs were
        read from, so that nobody else adds meanwhile."""


class Tx(Protocol):
    """One transaction."""

    @property
    def now(self) -> datetime:
        """The store's clock at its beginning."""

    @property
    def runs(self) -> Runs: ...
    @property
    def pipelines(self) -> Pipelines: ...
    @property
    def workers(self) -> Workers: ...
    @property
    def probes(self) -> Probes: ...
    @property
    def answers(self) -> Answers: ...
    @property
    def tickets(self) -> Tickets: ...
    @property
    def starts(self) -> Starts: ...
    @property
    def logs(self) -> Logs: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def rollups(self) -> Rollups: ...
    @property
    def deliveries(self) -> Deliveries: ...

    async def tell(self, events: Sequence[RunChanged]) -> None:
        """Adds events to the log."""


class Store(Protocol):
    """Transactions, and reads outside of them."""

    async def run(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        """Runs `work` in a transaction, again after a conflict; its only effects must be those in the
        store.
        """

    async def has_waiting(self) -> bool:
        """Whether a stage or a probe waits for a slot."""

    async def get(self, tenant: UUID, run_id: UUID) -> Run | None:
        """A run of a tenant as it stands."""

    async def revisions(self, run_ids: Collection[UUID]) -> dict[UUID, int]:
        """The revisions of the runs that exist."""

    async def list_runs(
        self, narrow: RunFilter, *, limit: int, offset: int, after: tuple[datetime, UUID] | None
    ) -> list[RunSummary]:
        """A page of runs, newest first."""

    async def count_runs(self, narrow: RunFilter) -> int:
        """How many runs there are."""

    async def decisions(self, tenant: UUID, keys: Collection[str]) -> list[Decision]:
        """What was decided under these keys, as far as anything was."""

    async def standings(self, tenant: UUID, run_ids: Collection[UUID]) -> dict[UUID, Standing]:
        """How those of these runs stand that the tenant has."""

    async def log_index(
        self, run: UUID, *, after: Mapping[tuple[UUID, int], int], notes_after: int
    ) -> LogIndex:
        """What there is of the log of a run, beyond the last known chunk of each attempt and the last known
        note.
        """

    async def days(self, tenant: UUID, pipeline: UUID, first: date, last: date) -> list[DayTotals]:
        """What the runs of a pipeline come to that ended from one day to another, oldest day first."""
