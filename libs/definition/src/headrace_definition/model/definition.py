"""The whole of a definition."""

from typing import Annotated, Literal

from pydantic import Field

from headrace_definition.model.base import Element, Name, Text, any_case
from headrace_definition.model.checks import QualityCheck
from headrace_definition.model.settings import Execution, Layout, Notification, Orchestration, Parameter
from headrace_definition.model.sinks import Sink
from headrace_definition.model.sources import Source
from headrace_definition.model.transformations import Transformation

Engine = Annotated[Literal["AUTO", "JDBC", "SPARK", "FLINK"], any_case(upper=True)]


class Definition(Element):
    """A pipeline: what is read, what is done to it, what must be true of it, and where it lands."""

    version: Literal[1] = Field(default=1, description="Version of this language.")
    name: Text | None = Field(default=None, description="Name of the pipeline; the API's wins.")
    description: str | None = Field(default=None, description="What the pipeline is for, for people.")
    version_label: Text | None = Field(
        default=None, description="A version of the author's own, such as 2.1.0."
    )
    tags: tuple[Text, ...] = Field(default=(), description="Words to find the pipeline by.")
    parameters: dict[Name, Parameter] = Field(
        default_factory=dict, description="Values that a run may be given, by name."
    )
    sources: tuple[Source, ...] = Field(default=(), description="Where rows come from.")
    transformations: tuple[Transformation, ...] = Field(default=(), description="What is done to them.")
    quality_checks: tuple[QualityCheck, ...] = Field(default=(), description="What must be true of them.")
    sinks: tuple[Sink, ...] = Field(default=(), description="Where they land.")
    orchestration: Orchestration | None = Field(default=None, description="When it runs, and after what.")
    engine: Engine = Field(default="AUTO", description="What runs it; AUTO chooses by the plan and says why.")
    notifications: tuple[Notification, ...] = Field(default=(), description="Whom to tell how a run ended.")
    execution: Execution | None = Field(default=None, description="Retries, timeouts and limits.")
    layout: Layout | None = Field(default=None, description="How an editor shows it.")
