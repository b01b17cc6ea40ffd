"""Telling where the data of a pipeline comes from and where it goes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidDefinition, NotFound
from headrace_chassis.identity import Principal
from headrace_definition import ColumnLineage, column_lineage
from headrace_definition.datasets import ConnectionPlace, Datasets, datasets
from headrace_definition.plan import Plan, SourceTask, TransformTask

from headrace_metadata.application import workspaces
from headrace_metadata.application.definitions import DefinitionChecker, Text
from headrace_metadata.application.places import places
from headrace_metadata.domain.pipelines import Pipeline, Version
from headrace_metadata.errors import told
from headrace_metadata.store import connections, pipelines, references

MAX_COLUMNS = 5_000
"""How many columns are told at the most."""

_MAX_ORIGINS = 20_000


@dataclass(frozen=True)
class Transformation:
    """A task that computes rows from rows, and the sources that these come from."""

    name: str
    type: str
    inputs: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class PipelineLineage:
    """The lineage of one version of a pipeline."""

    pipeline: Pipeline
    version: int
    datasets: Datasets
    transformations: tuple[Transformation, ...]
    columns: tuple[ColumnLineage, ...]
    truncated: bool


class LineageReader:
    """Compiles versions for their lineage. Nothing is stored: versions do not change, connections do."""

    def __init__(self, db: Database, checker: DefinitionChecker) -> None:
        self._db = db
        self._checker = checker

    async def read(self, principal: Principal, pipeline_id: UUID, number: int | None) -> PipelineLineage:
        """The lineage of a version, or of the latest one.

        Raises:
            NotFound: there is no such pipeline or version for the caller.
            InvalidDefinition: the text was accepted once and no longer is.
            Unavailable: too many definitions are being looked at.
        """
        async with self._db.read() as conn:
            pipeline = await pipelines.get(conn, workspaces.scope_of(principal), pipeline_id)
            if pipeline is None:
                raise NotFound("pipeline", pipeline_id)
            version: Version | None = pipeline.latest
            if number is not None and number != pipeline.version:
                version = await pipelines.get_version(conn, principal.tenant, pipeline_id, number)
            types = await references.connection_types(conn, pipeline.workspace_id)
        if version is None:
            raise NotFound("version", f"{number} of pipeline {pipeline_id}")
        report = await self._checker.report(Text.of(version.content), types)
        if report.compiled is None:
            raise InvalidDefinition(told(report.errors))
        plan = report.compiled.plan
        async with self._db.read() as conn:
            found = await connections.by_words(
                conn, principal.tenant, pipeline.workspace_id, plan.connections
            )
        known = places(plan.connections, found)
        return await self._checker.in_thread(lambda: _lineage(pipeline, version.number, plan, known))


def _lineage(
    pipeline: Pipeline, number: int, plan: Plan, known: Mapping[str, ConnectionPlace]
) -> PipelineLineage:
    traced = column_lineage(plan)
    sources = {task.key for task in plan.tasks if isinstance(task, SourceTask)}
    computed = [column for column in traced.columns if column.task not in sources]
    shown = _bounded(computed)
    return PipelineLineage(
        pipeline=pipeline,
        version=number,
        datasets=datasets(plan, known),
        transformations=tuple(
            Transformation(task.key, task.type, task.inputs, traced.tables[task.key])
            for task in plan.tasks
            if isinstance(task, TransformTask)
        ),
        columns=shown,
        truncated=len(shown) < len(computed),
    )


def _bounded(columns: Iterable[ColumnLineage]) -> tuple[ColumnLineage, ...]:
    """The first columns, as many as are told."""
    shown: list[ColumnLineage] = []
    origins = 0
    for column in columns:
        origins += len(column.origins)
        if len(shown) == MAX_COLUMNS or origins > _MAX_ORIGINS:
            break
        shown.append(column)
    return tuple(shown)
