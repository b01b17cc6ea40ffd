"""What a run is made of and does not change: its stages and tasks, and the rules it is carried out by.

Equal recipes are one row of the database, found by their digest, so that a run's own rows stay small.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum, StrEnum

from headrace_execution.domain.connection_limits import Limits


class Priority(IntEnum):
    """Which of the waiting stages goes first."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """How a run is carried out."""

    max_retries: int
    """How often a stage that failed for a transient reason is tried again."""
    retry_delay: timedelta
    """The wait before the first retry; it doubles with each."""
    attempt_timeout: timedelta
    """The longest that one attempt of a stage may take."""
    max_lost: int
    """How often a stage may lose its worker before it is parked as failed."""
    max_concurrent_runs: int | None
    """How many runs of the pipeline may be live at once; None means any number."""
    queue_when_full: bool
    """Whether a run beyond that number waits (True) or is refused."""
    queue_timeout: timedelta | None = None
    """The longest that a run may wait for its first start; None means any time."""
    total_timeout: timedelta | None = None
    """The longest that a run may take from its start; None means any time."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as the plan has it."""

    key: str
    kind: str
    type: str
    guarantee: str | None = None


class OnTimeout(StrEnum):
    """What happens when a signal has not come in time."""

    FAIL = "fail"
    CONTINUE = "continue"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class WaitSpec:
    """What a stage waits for that no worker runs."""

    signal: str
    """The signal's name, unique in the recipe."""
    timeout: timedelta
    on_timeout: OnTimeout
    data: bytes | None = None
    """What the signal may say, as the definition declares it: JSON. None means any object."""
    description: str | None = None
    proceed_if: bytes | None = None
    """What the signal must say for the run to go on: a JSON object. None means that anything will do."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage as the plan has it."""

    key: str
    tasks: tuple[int, ...]
    """Positions of its tasks in the recipe."""
    depends_on: tuple[int, ...]
    """Positions of the stages that must complete first."""
    loads: tuple[str, ...]
    """Keys of its sinks that write into a target and its ledger."""
    connections: tuple[str, ...]
    """Names or ids of the connections it uses."""
    payload: bytes
    """What a worker needs to run it."""
    cursors: tuple[tuple[str, str], ...] = ()
    """What its incremental sources go on from: the cursors of these sinks, in this stage or in later ones
    that get its rows, each with its source."""
    limits: Limits = ()
    """The connections among its own that not any number of stages may use at once."""
    wait: WaitSpec | None = None
    """The signal that it waits for, instead of being handed to a worker."""
    signals: tuple[int, ...] = ()
    """Positions of the stages whose signals its tasks use."""


@dataclass(frozen=True, slots=True)
class PlanNote:
    """Something questionable about the definition, told at acceptance."""

    code: str
    path: str
    message: str
    line: int | None = None
    column: int | None = None


class Channel(StrEnum):
    """By what somebody is told."""

    WEBHOOK = "WEBHOOK"
    EMAIL = "EMAIL"
    SLACK = "SLACK"


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whom to tell of what. Secrets are references, but for a URL that was written out: it is not shown."""

    on: tuple[str, ...]
    """What is told, in the words of the contract: RUNNING, SUCCESS, WARNING, FAILED, CANCELLED."""
    channel: Channel
    target: str = field(repr=False)
    signing_secret: str | None = None


@dataclass(frozen=True, slots=True)
class Notices:
    """Who is told of the runs of a pipeline, and by what name they know it."""

    pipeline_name: str
    receivers: tuple[Receiver, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a run that is decided before it starts."""

    digest: bytes
    """Identity: a hash of all the rest."""
    engine: str
    engine_reason: str
    tasks: tuple[TaskSpec, ...]
    """In an order in which each comes after its inputs."""
    stages: tuple[StageSpec, ...]
    """In an order in which each comes after those it depends on."""
    policy: Policy
    notes: tuple[PlanNote, ...] = ()
    notices: Notices | None = None
    """None where nobody is to be told."""
