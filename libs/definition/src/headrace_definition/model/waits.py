"""Waiting for somebody outside: an approval, or any other word that a run cannot go on without."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from headrace_definition.model.base import Duration, Element, Name, TaskKey, any_case
from headrace_definition.model.settings import Parameter, ParameterValue

DEFAULT_WAIT = timedelta(days=30)
"""An accepted run reaches an end, also where nobody ever answers."""

OnTimeout = Annotated[Literal["fail", "continue", "cancel"], any_case(upper=False)]


class WaitForSignal(Element):
    """Holds a run until a signal comes. No worker runs it, however long it takes.

    With an input, its rows are kept meanwhile and offered under this task's key when the signal has come;
    without one it is a gate that other tasks name in `after`. Tasks that use ${signals.name.field} wait for
    it as well.
    """

    type: Literal["wait_for_signal"]
    id: TaskKey | None = Field(default=None, description="Task key; made from the type where it is left out.")
    description: str | None = Field(default=None, description="What is being waited for, for people.")
    input: TaskKey | None = Field(
        default=None,
        description="Task whose rows wait; inferred where only one fits, unless `after` is given or a source "
        "waits for this task.",
    )
    signal: TaskKey | None = Field(
        default=None, description="Name of the signal; the task key where it is left out."
    )
    timeout: Duration = Field(
        default=DEFAULT_WAIT,
        description="How long to wait, from when all before it is done; thirty days where it is left out.",
    )
    on_timeout: OnTimeout = Field(
        default="fail",
        description="When the signal has not come in time: `fail` the run, `continue` with a warning and the "
        "defaults of `data`, or `cancel` the run.",
    )
    data: dict[Name, Parameter] | None = Field(
        default=None,
        description="What the signal says, by name: types, defaults, which values are required. Texts use "
        "them as ${signals.name.field}. Any JSON object is accepted, and kept, where it is left out.",
        examples=[{"approved": {"type": "boolean", "required": True}, "reason": {"type": "string"}}],
    )
    proceed_if: dict[Name, ParameterValue] | None = Field(
        default=None,
        min_length=1,
        description="What the signal must say for the run to go on, by fields of `data`. With another "
        "value the run is cancelled, and the signal is told as the reason.",
        examples=[{"approved": True}],
    )
    after: tuple[TaskKey, ...] = Field(
        default=(), description="Tasks of any kind that must have completed before it begins to wait."
    )

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The task whose rows it holds, if any."""
        return (self.input,) if self.input is not None else ()

    @property
    def signal_name(self) -> str:
        """The name under which the signal is sent."""
        return self.signal or self.id or ""

    @property
    def materialize(self) -> bool:
        """It makes no rows of its own that could be kept."""
        return False
