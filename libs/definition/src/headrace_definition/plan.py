"""The compiled form of a definition: what services store and a worker carries out.

A *task* is what a user sees. A *stage* is what a worker runs: the largest group of tasks that can stream
without stopping. Plans are immutable, and equal definitions compile to equal bytes: they can be cached and
compared.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from headrace_definition.model import Parameter, QualityCheck, Sink, Source, Transformation, WaitForSignal

PLAN_FORMAT: Literal[1] = 1

EngineName = Literal["JDBC", "SPARK", "FLINK"]
Guarantee = Literal["EXACTLY_ONCE", "AT_LEAST_ONCE"]


class PlanPart(BaseModel):
    """A part of a plan: immutable and closed, so that a plan of another format is refused, not half-read."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", ser_json_inf_nan="constants")


class _TaskBase(PlanPart):
    key: str
    """Unique in the plan; the name under which others read this task's rows."""
    type: str
    """What kind of its kind: `database`, `file`, `values` or `connector` of a source; the `type` of a
    transformation or check; `database`, `file`, `output`, `discard` or `connector` of a sink."""
    inputs: tuple[str, ...] = ()
    """Keys of the tasks whose rows it reads."""
    after: tuple[str, ...] = ()
    """Keys of tasks that must have completed before it starts, whatever it reads."""
    discards: bool = False
    """Whether its result is read to the end and dropped: a discard sink without an id, fused into it."""


class SourceTask(_TaskBase):
    """Reads rows."""

    kind: Literal["source"]
    config: Source


class TransformTask(_TaskBase):
    """Computes rows from rows, or holds them until a signal comes."""

    kind: Literal["transform"]
    config: Transformation

    @property
    def wait(self) -> WaitForSignal | None:
        """What it waits for, where it is a task that no worker runs."""
        return self.config if isinstance(self.config, WaitForSignal) else None


class CheckTask(_TaskBase):
    """Judges rows before they land."""

    kind: Literal["check"]
    config: QualityCheck

    @property
    def severity(self) -> Literal["error", "warning"]:
        """Whether violations fail the run or become a warning of it."""
        return self.config.severity


class SinkTask(_TaskBase):
    """Writes rows."""

    kind: Literal["sink"]
    config: Sink
    guarantee: Guarantee
    guarantee_reason: str


Task = Annotated[SourceTask | TransformTask | CheckTask | SinkTask, Field(discriminator="kind")]


class Stage(PlanPart):
    """Tasks that one worker runs together: the unit of dispatch, retry, lease and timeout."""

    key: str
    """`s1`, `s2`, ... in an order in which each comes after those it depends on."""
    tasks: tuple[str, ...]
    """Keys of its tasks, in an order in which each comes after its inputs."""
    depends_on: tuple[str, ...] = ()
    """Keys of the stages that must complete first."""
    artifacts_in: tuple[str, ...] = ()
    """Keys of tasks of other stages whose materialised rows it reads."""
    artifacts_out: tuple[str, ...] = ()
    """Keys of its own tasks whose rows it leaves as artifacts for other stages."""
    held_rows: dict[str, str] = Field(default_factory=dict)
    """For each of `artifacts_in` that only waits for a signal: the task whose artifact it offers."""
    signals: tuple[str, ...] = ()
    """Names of the signals whose data its tasks use."""
    keep_seconds: int = 0
    """How long its artifacts may have to be kept beyond the usual time: as long as later stages may wait."""
    connections: tuple[str, ...] = ()
    """Names or ids of the connections it uses."""
    rereads: tuple[str, ...] = ()
    """Keys of its incremental sources that may read rows again: all that their rows come to, in this stage or
    in later ones, merges them by key."""
    resumes: tuple[str, ...] = ()
    """Keys of sinks of later stages that rows of its incremental sources come to: they are asked here how far
    they have come. One that is told by a signal where to load cannot be."""


class PlanWarning(PlanPart):
    """Something that may well be wrong, and does not stop the definition from being stored."""

    code: str
    path: str
    message: str
    line: int | None = None
    column: int | None = None


class StagePayload(PlanPart):
    """Exactly what a worker needs to run one stage. It holds no secret and no parameter value."""

    format: Literal[1]
    engine: EngineName
    stage: Stage
    tasks: tuple[Task, ...]
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    signals: dict[str, dict[str, Parameter]] = Field(default_factory=dict)
    """The declared data of the signals that its tasks use."""
    later_sinks: tuple[SinkTask, ...] = ()
    """The sinks that the stage `resumes`."""

    def task(self, key: str) -> Task:
        """The task of that key.

        Raises:
            KeyError: when the stage has no such task.
        """
        for task in self.tasks:
            if task.key == key:
                return task
        raise KeyError(key)

    def to_json(self) -> bytes:
        """The same bytes for an equal payload."""
        return _to_json(self)

    @staticmethod
    def from_json(data: bytes | str) -> "StagePayload":
        """The payload that `to_json` wrote.

        Raises:
            pydantic.ValidationError: when it is not one of this format.
        """
        return StagePayload.model_validate_json(data)


class Plan(PlanPart):
    """What a definition compiles to."""

    format: Literal[1]
    engine: EngineName
    engine_reason: str
    """Why this engine: what the definition said, or what AUTO saw."""
    tasks: tuple[Task, ...]
    """In an order in which each comes after its inputs."""
    stages: tuple[Stage, ...]
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    connections: tuple[str, ...] = ()
    """Names or ids of all connections that are referred to, sorted."""
    warnings: tuple[PlanWarning, ...] = ()

    def stage(self, key: str) -> Stage:
        """The stage of that key.

        Raises:
            KeyError: when there is none.
        """
        for stage in self.stages:
            if stage.key == key:
                return stage
        raise KeyError(key)

    def stage_payload(self, key: str) -> bytes:
        """What a worker needs for one stage, as `StagePayload.from_json` reads it.

        Raises:
            KeyError: when there is no such stage.
        """
        stage = self.stage(key)
        members = frozenset(stage.tasks)
        payload = StagePayload(
            format=PLAN_FORMAT,
            engine=self.engine,
            stage=stage,
            tasks=tuple(task for task in self.tasks if task.key in members),
            parameters=self.parameters,
            signals={
                name: fields for name, fields in self.declared_signals().items() if name in stage.signals
            },
            later_sinks=tuple(
                task for task in self.tasks if isinstance(task, SinkTask) and task.key in stage.resumes
            ),
        )
        return payload.to_json()

    def declared_signals(self) -> dict[str, dict[str, Parameter]]:
        """What the signals that it waits for may say, by their names."""
        waits = (task.wait for task in self.tasks if isinstance(task, TransformTask))
        return {wait.signal_name: wait.data or {} for wait in waits if wait is not None}

    def to_json(self) -> bytes:
        """The same bytes for an equal plan."""
        return _to_json(self)

    @staticmethod
    def from_json(data: bytes | str) -> "Plan":
        """The plan that `to_json` wrote.

        Raises:
            pydantic.ValidationError: when it is not a plan of this format.
        """
        return Plan.model_validate_json(data)


def _to_json(part: BaseModel) -> bytes:
    # Defaults are left out: most fields of most tasks have them, and the format number fixes what they are.
    return part.model_dump_json(by_alias=True, exclude_defaults=True).encode()
