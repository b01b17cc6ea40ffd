"""What of a definition is not a task: parameters, orchestration, execution, notifications, layout."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from headrace_definition.model.base import Duration, Element, Name, TaskKey, Text, any_case
from headrace_definition.notifying import REFERENCE_PATTERN, target_flaw

ParameterType = Annotated[
    Literal["string", "integer", "number", "boolean", "date", "timestamp"], any_case(upper=False)
]
ParameterValue = str | int | float | bool


class Parameter(Element):
    """A value that a run may be given; texts use it as ${params.name}."""

    type: ParameterType = Field(default="string", description="Type of the value.")
    default: ParameterValue | None = Field(default=None, description="Value of a run that gives none.")
    required: bool = Field(
        default=False, description="Whether a run must give it, where there is no default."
    )
    enum: tuple[ParameterValue, ...] | None = Field(default=None, min_length=1, description="Allowed values.")
    description: str | None = Field(default=None, description="What it is for, for people.")


class UpstreamPipeline(Element):
    """A pipeline that this one waits for."""

    pipeline: Text = Field(description="Name or id of a pipeline of the same workspace.")
    type: Annotated[Literal["STRONG", "WEAK"], any_case(upper=True)] = Field(
        default="STRONG", description="STRONG waits for success, WEAK for completion whatever its result."
    )


class MaintenanceWindow(Element):
    """A time in which no run starts: two instants, or weekly times on some days."""

    start: str | None = Field(default=None, description="First instant, RFC 3339.")
    end: str | None = Field(default=None, description="Instant after the last, RFC 3339.")
    days: tuple[str, ...] | None = Field(default=None, description="Days of the week, such as MON.")
    from_: str | None = Field(default=None, alias="from", description="Start, HH:MM in the schedule's zone.")
    to: str | None = Field(default=None, description="End, HH:MM in the schedule's zone.")


class Schedule(Element):
    """When runs start by themselves."""

    cron: Text = Field(
        description="Five fields: minute, hour, day of month, month, day of week.", examples=["0 2 * * *"]
    )
    timezone: Text = Field(
        default="UTC", description="Zone of the cron expression, a name of the tz database."
    )
    business_days_only: bool = Field(default=False, description="Skip Saturdays, Sundays and holidays.")
    skip_holidays: bool = Field(default=False, description="Skip the holidays of `country`.")
    country: Text | None = Field(default=None, description="ISO 3166-1 code whose holidays count.")
    subdivision: Text | None = Field(default=None, description="ISO 3166-2 part of the country.")
    maintenance_windows: tuple[MaintenanceWindow, ...] = Field(
        default=(), description="Times in which no run starts."
    )
    overlap_strategy: Annotated[Literal["SKIP", "QUEUE", "CANCEL_RUNNING", "ALLOW"], any_case(upper=True)] = (
        Field(default="SKIP", description="What a tick does while a run of the same schedule is live.")
    )
    catchup_strategy: Annotated[
        Literal["SKIP_TO_CURRENT", "RUN_ALL", "RUN_LATEST", "RUN_LATEST_N"], any_case(upper=True)
    ] = Field(default="SKIP_TO_CURRENT", description="What happens to ticks that were missed.")
    catchup_limit: int | None = Field(default=None, ge=1, description="N of RUN_LATEST_N.")
    parameters: dict[Name, ParameterValue | None] = Field(
        default_factory=dict, description="Parameters of the runs it starts."
    )
    enabled: bool = Field(default=True, description="Whether it ticks.")


class Orchestration(Element):
    """When the pipeline runs, and after which others."""

    depends_on: tuple[UpstreamPipeline, ...] = Field(default=(), description="Pipelines it waits for.")
    schedule: Schedule | None = Field(default=None, description="When runs start by themselves.")


class Notification(Element):
    """Whom to tell how a run ended."""

    on: tuple[
        Annotated[Literal["RUNNING", "SUCCESS", "FAILED", "CANCELLED", "WARNING"], any_case(upper=True)], ...
    ] = Field(default=("FAILED",), min_length=1, description="Results that are told.")
    type: Annotated[Literal["WEBHOOK", "EMAIL", "SLACK"], any_case(upper=True)] = Field(
        description="By what."
    )
    target: Text = Field(description="URL or address; a secret one as ${secrets.name}.")
    signing_secret: Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)] | None = Field(
        default=None,
        description="What a WEBHOOK is signed with, as ${secrets.name}: the secret of a connection of type "
        "SECRET.",
    )

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        flaw = target_flaw(self.type, self.target)
        if flaw is not None:
            raise ValueError(f"target {flaw}")
        if self.signing_secret is not None and self.type != "WEBHOOK":
            raise ValueError(f"signing_secret is for WEBHOOK; {self.type} has no signature")
        return self


class Execution(Element):
    """How a run is carried out. What is left out here is the pipeline's setting."""

    max_retries: int | None = Field(default=None, ge=0, le=100, description="Retries of a stage.")
    retry_delay: Duration | None = Field(
        default=None, description="Delay before the first retry; it doubles."
    )
    timeout: Duration | None = Field(default=None, description="Longest time of one attempt of a stage.")
    max_concurrent_runs: int | None = Field(default=None, ge=1, description="Runs of this pipeline at once.")
    queue_when_full: bool | None = Field(
        default=None, description="Whether further runs wait (true) or are refused (false)."
    )
    priority: Annotated[Literal["LOW", "NORMAL", "HIGH"], any_case(upper=True)] | None = Field(
        default=None, description="Which runs go first."
    )
    batch_size: int | None = Field(default=None, ge=1, description="Rows a batch while moving, as a hint.")
    parallelism: int | None = Field(
        default=None, ge=1, description="Tasks at once that the work is cut into; large numbers choose SPARK."
    )
    partitioning: JsonValue = Field(default=None, description="How the work is cut, for engines that can.")


class LayoutNode(Element):
    """How an editor shows a task."""

    id: str | None = Field(default=None, description="The editor's own id, where it is not the task key.")
    node_type: str | None = Field(default=None, description="The editor's word for the kind of node.")
    label: str | None = Field(default=None, description="Label.")
    position: dict[str, Any] | None = Field(default=None, description="Place, such as {x, y}.")


class LayoutEdge(Element):
    """How an editor shows a connection between two tasks."""

    source: TaskKey = Field(description="Task the rows come from.")
    target: TaskKey = Field(description="Task that reads them.")
    id: str | None = Field(default=None, description="The editor's own id.")
    label: str | None = Field(default=None, description="Label.")


class Layout(Element):
    """How an editor shows the definition; it changes nothing about what is run."""

    nodes: dict[TaskKey, LayoutNode] = Field(default_factory=dict, description="By task key.")
    edges: tuple[LayoutEdge, ...] = Field(default=(), description="Those that say more than the tasks do.")
