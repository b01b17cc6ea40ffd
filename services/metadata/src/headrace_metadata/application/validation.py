"""Saying what is right and wrong with a definition, storing nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from headrace_chassis.database import Database
from headrace_chassis.identity import Principal
from headrace_definition import ColumnLineage, Problem, column_lineage, to_yaml

from headrace_metadata.application import workspaces
from headrace_metadata.application.definitions import DefinitionChecker, Text, declared_settings
from headrace_metadata.application.pipelines import unknown_given
from headrace_metadata.domain.pipelines import Content, Given
from headrace_metadata.domain.settings_checks import cron_problems, setting_warnings
from headrace_metadata.store import references


@dataclass(frozen=True)
class Sound:
    """What is told of a definition without errors."""

    engine: str
    tasks: Sequence[str]
    canonical: str
    lineage: Sequence[ColumnLineage]


@dataclass(frozen=True)
class Verdict:
    """What is right and wrong with a definition; `sound` is None where there are errors."""

    errors: Sequence[Problem]
    warnings: Sequence[Problem]
    sound: Sound | None


class PipelineValidator:
    """Checks definitions as creating a pipeline would."""

    def __init__(self, db: Database, checker: DefinitionChecker) -> None:
        self._db = db
        self._checker = checker

    async def validate(
        self, principal: Principal, text: Text, workspace_id: UUID | None, schedule_cron: str | None
    ) -> Verdict:
        """The verdict on a definition; its errors are no failure.

        Raises:
            NotFound, WorkspaceForbidden: of the workspace that is named.
            TooLarge: the text is longer than the installation allows.
        """
        given = Given(
            schedule_cron=schedule_cron,
            source_connection_id=text.source_connection_id,
            target_connection_id=text.target_connection_id,
        )
        async with self._db.read() as conn:
            workspace = await workspaces.chosen(conn, principal, workspace_id)
            types = await references.connection_types(conn, workspace.id)
            unknown = await unknown_given(conn, workspace.id, given)
        report = await self._checker.report(text, types)
        errors = [*report.errors, *(cron_problems(schedule_cron) if schedule_cron is not None else ())]
        compiled = report.compiled
        if compiled is None or errors:
            return Verdict(errors, [*report.warnings, *unknown], None)
        content = Content("", text.text, given, declared_settings(compiled.definition))
        sound = await self._checker.in_thread(
            lambda: Sound(
                engine=compiled.plan.engine,
                tasks=[task.key for task in compiled.plan.tasks],
                canonical=to_yaml(compiled.definition),
                lineage=column_lineage(compiled.plan).columns,
            )
        )
        return Verdict(errors, [*report.warnings, *setting_warnings(content), *unknown], sound)
