"""The aggregate: a run with its stages and their tasks. One lock, one transaction, one value.

What changes has no slots: `values.replace` copies its fields as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias
from uuid import UUID

from headrace_execution.domain.recipe import Priority, Recipe, StageSpec
from headrace_execution.domain.states import (
    FINAL_RUN_STATES,
    FINAL_STAGE_STATES,
    FINAL_TASK_STATES,
    RunState,
    StageState,
    TaskState,
)
from headrace_execution.domain.triggers import MANUAL, Trigger

NO_DETAILS: Mapping[str, str] = MappingProxyType({})


class ErrorClass(StrEnum):
    """What kind of failure it is: only transient ones are tried again."""

    TRANSIENT = "TRANSIENT"
    CONFIGURATION = "CONFIGURATION"
    DATA = "DATA"
    QUOTA = "QUOTA"
    INTERNAL = "INTERNAL"


class Purpose(StrEnum):
    """What a stage is handed out for."""

    RUN = "RUN"
    SETTLE = "SETTLE"
    """To see to it that nothing of it can land any more, and to learn what has landed."""


class StopReason(StrEnum):
    """Why a leased stage is being stopped."""

    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class Outcome(StrEnum):
    """How an assignment ended, as its worker says."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    FENCED = "FENCED"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task, stage or run failed. Never holds a secret."""

    code: str
    kind: ErrorClass
    message: str
    details: Mapping[str, str] = field(default_factory=lambda: NO_DETAILS)


@dataclass(frozen=True, slots=True)
class Warned:
    """Something questionable that did not fail the run."""

    task: str
    code: str
    message: str
    details: Mapping[str, str] = field(default_factory=lambda: NO_DETAILS)


@dataclass(frozen=True, slots=True)
class CursorValue:
    """How far an incremental source has been loaded by a sink."""

    sink: str
    source: str
    value: bytes
    column: str = ""
    """The column, for people; empty where its worker did not say."""
    before: str | None = None
    """The value that the reading went on from; None where it began at the beginning."""
    after: str = ""
    """The value that it came to."""


@dataclass(frozen=True, slots=True)
class StandingCursor:
    """A cursor as it stands, and the fence of the load that brought it there."""

    sink: str
    source: str
    value: bytes
    fence: int


Columns: TypeAlias = tuple[tuple[str, str], ...]
"""Names and types of columns, in order."""


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """A file in the artifact store that an output sink has written."""

    key: str
    format: str
    """parquet, csv or json."""
    bytes: int
    sha256: str
    columns: Columns


@dataclass(frozen=True, slots=True)
class LoadShape:
    """What the rows of a load look like, as the worker that landed it found."""

    columns: Columns
    sources: tuple[tuple[str, Columns], ...]
    """The sources, by task, that they were computed from in the load's stage."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a load has landed, as the ledger in the target has it."""

    sink: str
    partition: str
    fence: int
    rows: int
    bytes: int
    checksum: str
    landed_at: datetime | None
    cursors: tuple[CursorValue, ...] = ()
    output: StoredOutput | None = None
    """The file, where the load is an output: this receipt is all that points to it."""
    shape: LoadShape | None = None
    """None where the worker that told of it had not landed it itself, or would have had too much to tell."""


@dataclass(frozen=True, slots=True)
class ReceivedSignal:
    """What somebody has said to a run. Never holds a secret."""

    data: bytes
    """A JSON object, checked against what the definition declares."""
    received_at: datetime
    sent_by: str
    run: UUID
    """The run that it was sent to: this one, or one that it tries again."""
    refusal: str | None = None
    """Why the run may not go on, in words, where that is what it says."""


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A task as its worker sees it."""

    key: str
    state: TaskState
    started_at: datetime | None = None
    finished_at: datetime | None = None
    rows_in: int = 0
    rows_out: int = 0
    bytes: int = 0
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a worker says came of an assignment."""

    outcome: Outcome
    tasks: tuple[TaskReport, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    error: Failure | None = None
    failed_task: str = ""
    warnings: tuple[Warned, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task as it stands. What does not change about it is in the recipe."""

    position: int
    state: TaskState = TaskState.PENDING
    attempt: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    rows_in: int = 0
    rows_out: int = 0
    bytes: int = 0
    error: Failure | None = None
    retry_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether it can change no more."""
        return self.state in FINAL_TASK_STATES

    @property
    def shown(self) -> TaskState:
        """The state that users see: COMPLETED as soon as its worker says so.

        It is final only with its stage, for an attempt that fails later does the work of all tasks again.
        """
        done = self.state is TaskState.RUNNING and self.finished_at is not None
        return TaskState.COMPLETED if done else self.state


@dataclass(frozen=True)
class Stage:
    """A stage as it stands. What does not change about it is in the recipe."""

    id: UUID
    position: int
    tasks: tuple[Task, ...]
    state: StageState = StageState.BLOCKED
    purpose: Purpose = Purpose.RUN
    verdict: StageState | None = None
    """While it settles: what it becomes unless all its loads have landed (FAILED or CANCELLED)."""
    fence: int = 0
    """The number of its latest lease; it only grows. Valid only while LEASED."""
    worker: UUID | None = None
    leased_at: datetime | None = None
    attempt: int = 0
    failures: int = 0
    """Failed attempts; those of which the worker was lost are counted in `lost`."""
    lost: int = 0
    unsettled: bool = False
    """An attempt ended without a word, so that its load may still land until the ledger refuses it."""
    stop: StopReason | None = None
    ready_at: datetime | None = None
    timer: datetime | None = None
    """When the state it is in must be looked at: the retry, the attempt's timeout, the end of a grace."""
    settle_by: datetime | None = None
    """When settling is given up and the verdict stands, with a warning."""
    error: Failure | None = None
    """The latest failure."""
    warnings: tuple[Warned, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    slot_us: int = 0
    """How long its attempts that have ended have held slots, in microseconds."""
    signal: ReceivedSignal | None = None
    """The signal that it waits for, as soon as it has come: that may be before it waits."""

    @property
    def is_final(self) -> bool:
        """Whether it can change no more."""
        return self.state in FINAL_STAGE_STATES

    @property
    def was_taken_over(self) -> bool:
        """Whether it has completed in the run that its run tries again, which then did what it shows."""
        return self.state is StageState.COMPLETED and not self.attempt

    @property
    def due_at(self) -> datetime | None:
        """The earlier of its two clocks."""
        if self.timer is None or self.settle_by is None:
            return self.timer or self.settle_by
        return min(self.timer, self.settle_by)


@dataclass(frozen=True)
class Run:
    """A run as it stands."""

    id: UUID
    tenant: UUID
    workspace: UUID
    pipeline: UUID
    pipeline_version: int | None
    recipe: Recipe
    stages: tuple[Stage, ...]
    created_at: datetime
    logical_date: datetime
    parameters: bytes
    triggered_by: str
    trigger_label: str | None = None
    priority: Priority = Priority.NORMAL
    full_refresh: bool = False
    root: UUID | None = None
    """The first run of a chain of retries; None where it is this one."""
    retry_of: UUID | None = None
    interval_start: datetime | None = None
    interval_end: datetime | None = None
    traceparent: str = ""
    state: RunState = RunState.PENDING
    trigger: Trigger = MANUAL
    variables: bytes | None = None
    """The values that `${env.NAME}` has in this run, as JSON; None where it was given none."""
    held: bool = False
    """A limit on concurrent runs or earlier runs of its trigger keep it from starting; it is not counted
    against that limit."""
    cancel_requested_at: datetime | None = None
    cancel_reason: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: Failure | None = None
    """What went wrong with the run as a whole."""
    revision: int = 1

    @property
    def is_final(self) -> bool:
        """Whether it can change no more."""
        return self.state in FINAL_RUN_STATES

    @property
    def is_stopping(self) -> bool:
        """Whether no further stage may start: it was cancelled, or failed as a whole."""
        return self.cancel_requested_at is not None or self.error is not None

    @property
    def root_id(self) -> UUID:
        """The id under which its loads stand in the ledgers of their targets."""
        return self.root or self.id

    @property
    def due_at(self) -> datetime | None:
        """When the run as a whole must be looked at: its time to queue or its total time is over."""
        policy = self.recipe.policy
        if self.is_final or self.is_stopping:
            return None
        if self.state is RunState.PENDING:
            return self.created_at + policy.queue_timeout if policy.queue_timeout else None
        if self.started_at is not None and policy.total_timeout:
            return self.started_at + policy.total_timeout
        return None

    @property
    def warning_count(self) -> int:
        """How many warnings its stages have."""
        return sum(len(stage.warnings) for stage in self.stages)

    @property
    def outputs(self) -> tuple[Receipt, ...]:
        """The receipts of outputs that have landed."""
        landed = (receipt for stage in self.stages for receipt in stage.receipts)
        return tuple(receipt for receipt in landed if receipt.output is not None)

    def spec(self, stage: Stage) -> StageSpec:
        """What does not change about a stage."""
        return self.recipe.stages[stage.position]

    def stage(self, stage_id: UUID) -> Stage | None:
        """The stage of that id, if it is one of this run."""
        for stage in self.stages:
            if stage.id == stage_id:
                return stage
        return None
