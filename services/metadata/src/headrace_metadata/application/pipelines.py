"""Writing pipelines: what is checked, which version it makes, and what is questionable about it."""

from dataclasses import dataclass, replace
from itertools import islice
from uuid import UUID

import sqlalchemy as sa
from headrace_chassis import outbox
from headrace_chassis.database import Database, constraint_name
from headrace_chassis.errors import NameTaken, NotFound, VersionMismatch
from headrace_chassis.identity import Principal
from headrace_chassis.ids import uuid7
from headrace_definition import Problem
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application import audit, workspaces
from headrace_metadata.application.definitions import Checked, DefinitionChecker, Text
from headrace_metadata.application.events import pipeline_event
from headrace_metadata.domain.names import copy_names
from headrace_metadata.domain.pipelines import Change, Content, Creator, Given, Pipeline
from headrace_metadata.domain.settings_checks import (
    JSON_NAMES,
    label_problems,
    overridden,
    setting_problems,
    setting_warnings,
    unknown_connection,
)
from headrace_metadata.errors import PipelineDeleting, refuse
from headrace_metadata.store import pipelines as store
from headrace_metadata.store import references
from headrace_metadata.store.scope import Scope

_COPY_NAMES_TRIED = 1000


@dataclass(frozen=True)
class NewPipeline:
    """A pipeline to create."""

    workspace_id: UUID | None
    name: str
    text: str
    given: Given
    label: str | None = None
    """What its creator calls themselves."""


@dataclass(frozen=True)
class Written:
    """A pipeline as it is after a write, and what is questionable about it."""

    pipeline: Pipeline
    warnings: tuple[Problem, ...]


class ContentMoved(Exception):  # noqa: N818 - it names what happened
    """The pipeline changed while its new content was being checked; the check must be done again."""


class PipelineWriter:
    """Creates, changes and copies pipelines, each in the caller's transaction, with the event of it."""

    def __init__(self, db: Database, checker: DefinitionChecker) -> None:
        self._db = db
        self._checker = checker

    async def check_new(self, principal: Principal, new: NewPipeline) -> Checked:
        """Checks all that needs no lock, before the transaction begins.

        Raises:
            InvalidRequest: name or settings are wrong, all problems listed.
            InvalidDefinition: the text has errors, all of them listed with their places.
            TooLarge: the text is longer than the installation allows.
            NotFound, WorkspaceForbidden: of the workspace that it names.
        """
        refuse([*setting_problems(new.name, new.given), *label_problems("createdBy", new.label)])
        async with self._db.read() as conn:
            workspace = await workspaces.chosen(conn, principal, new.workspace_id)
            types = await references.connection_types(conn, workspace.id)
        text = Text(new.text, new.given.source_connection_id, new.given.target_connection_id)
        return await self._checker.check(text, types)

    async def check_change(
        self, principal: Principal, pipeline_id: UUID, change: Change, expected: int | None
    ) -> Checked:
        """Checks what a change makes of a pipeline, before the transaction begins.

        Raises:
            NotFound, VersionMismatch: of the pipeline as it is now.
            InvalidRequest, InvalidDefinition, TooLarge: as `check_new`.
        """
        async with self._db.read() as conn:
            before = await store.get(conn, workspaces.scope_of(principal), pipeline_id)
            if before is None:
                raise NotFound("pipeline", pipeline_id)
            types = await references.connection_types(conn, before.workspace_id)
        if expected is not None and expected != before.version:
            raise VersionMismatch(expected, before.version)
        after = changed(before, change)
        refuse(setting_problems(after.name, after.given))
        return await self._checker.check(Text.of(after), types)

    async def create(
        self, conn: AsyncConnection, principal: Principal, new: NewPipeline, checked: Checked
    ) -> Written:
        """Adds a checked pipeline at version 1.

        Raises:
            NotFound, WorkspaceForbidden: of the workspace that it names.
            NameTaken: the workspace has a pipeline of that name.
        """
        workspace = await workspaces.chosen(conn, principal, new.workspace_id)
        content = Content(new.name, new.text, new.given, checked.declared)
        added = await self._add(conn, principal, workspace.id, content, checked, new.label)
        if added is None:
            raise NameTaken("pipeline", new.name)
        return added

    async def update(
        self,
        conn: AsyncConnection,
        principal: Principal,
        pipeline_id: UUID,
        change: Change,
        checked: Checked,
        expected: int | None,
    ) -> Written:
        """Makes the next version of a pipeline by a checked change, or none where nothing really changes.

        Raises:
            NotFound, PipelineDeleting: the pipeline is gone or going.
            VersionMismatch: it is no longer at the version that the caller has seen.
            NameTaken: the workspace has another pipeline of the new name.
            ContentMoved: another change came between, so that the check must be done again.
        """
        before = await lock(conn, principal, pipeline_id, expected)
        after = changed(before, change)
        if Text.of(after) != checked.text:
            raise ContentMoved
        after = replace(after, declared=checked.declared)
        if after == before.latest.content:
            return Written(before, await self._warnings(conn, before, checked))
        await self._demand_free_name(conn, before, after.name)
        try:
            await store.add_version(conn, before, after, principal.acts_as)
        except sa.exc.IntegrityError as error:
            if constraint_name(error) == "pipeline_name_key":
                raise NameTaken("pipeline", after.name) from None
            raise
        named = checked.references | after.secrets
        await references.replace(conn, before.id, before.workspace_id, named)
        return await self._written(conn, principal, before.id, "updated", checked, before.latest.content)

    async def duplicate(
        self,
        conn: AsyncConnection,
        principal: Principal,
        original: Pipeline,
        name: str | None,
        workspace_id: UUID | None,
    ) -> Written:
        """Copies the latest version into a new pipeline, without its schedule.

        Raises:
            NotFound, WorkspaceForbidden: of the workspace that it names.
            NameTaken: the name is given and taken, or a thousand copies have taken all names that are tried.
            InvalidDefinition: the text was accepted once and no longer is.
        """
        to = original.workspace_id
        if workspace_id is not None:
            to = (await workspaces.named(conn, principal, workspace_id)).id
        source = original.latest.content
        content = replace(source, given=replace(source.given, schedule_cron=None))
        if name is not None:
            refuse(setting_problems(name, content.given))
        types = await references.connection_types(conn, to)
        checked = await self._checker.check(Text.of(content), types)
        names = [name] if name is not None else islice(copy_names(source.name), _COPY_NAMES_TRIED)
        for candidate in names:
            copy = replace(content, name=candidate, declared=checked.declared)
            added = await self._add(conn, principal, to, copy, checked)
            if added is not None:
                return added
        raise NameTaken("pipeline", source.name if name is None else name)

    async def _add(
        self,
        conn: AsyncConnection,
        principal: Principal,
        workspace_id: UUID,
        content: Content,
        checked: Checked,
        label: str | None = None,
    ) -> Written | None:
        identity = uuid7()
        creator = Creator(principal.acts_as, label)
        if not await store.add(conn, identity, principal.tenant, workspace_id, content, creator):
            return None
        await references.replace(conn, identity, workspace_id, checked.references | content.secrets)
        return await self._written(conn, principal, identity, "created", checked)

    async def _demand_free_name(self, conn: AsyncConnection, before: Pipeline, name: str) -> None:
        if name != before.latest.content.name and await store.name_is_taken(conn, before.workspace_id, name):
            raise NameTaken("pipeline", name)

    async def _written(
        self,
        conn: AsyncConnection,
        principal: Principal,
        identity: UUID,
        what: str,
        checked: Checked,
        before: Content | None = None,
    ) -> Written:
        pipeline = await store.get(conn, Scope(principal.tenant), identity)
        if pipeline is None:
            raise RuntimeError(f"pipeline {identity} vanished in its own transaction")
        await outbox.append(conn, [pipeline_event(what, pipeline)])
        warnings = await self._warnings(conn, pipeline, checked)
        await audit.pipeline_was(conn, principal, what, pipeline, before)
        return Written(pipeline, warnings)

    async def _warnings(
        self, conn: AsyncConnection, pipeline: Pipeline, checked: Checked
    ) -> tuple[Problem, ...]:
        content = pipeline.latest.content
        named_otherwise = checked.name is not None and checked.name != content.name
        return (
            *checked.warnings,
            *setting_warnings(content),
            *([overridden("name")] if named_otherwise else []),
            *await unknown_given(conn, pipeline.workspace_id, content.given),
            *await unknown_secrets(conn, pipeline.workspace_id, content),
        )


async def lock(
    conn: AsyncConnection,
    principal: Principal,
    pipeline_id: UUID,
    expected: int | None,
    *,
    closing_too: bool = False,
) -> Pipeline:
    """A pipeline, locked for a change.

    Raises:
        NotFound: there is none for the caller.
        PipelineDeleting: it is being deleted, and `closing_too` does not allow that.
        VersionMismatch: it is not at the expected version.
    """
    pipeline = await store.lock(conn, workspaces.scope_of(principal), pipeline_id)
    if pipeline is None:
        raise NotFound("pipeline", pipeline_id)
    if pipeline.closing and not closing_too:
        raise PipelineDeleting(pipeline_id)
    if expected is not None and expected != pipeline.version:
        raise VersionMismatch(expected, pipeline.version)
    return pipeline


def changed(before: Pipeline, change: Change) -> Content:
    """What a change makes of a pipeline; what its text declares is not known yet."""
    content = before.latest.content
    return replace(
        content,
        name=content.name if change.name is None else change.name,
        text=content.text if change.text is None else change.text,
        given=change.given_after(content.given),
    )


async def unknown_given(conn: AsyncConnection, workspace_id: UUID, given: Given) -> list[Problem]:
    """Warnings for given connections that the workspace does not have yet."""
    named = {
        JSON_NAMES[name]: str(identity)
        for name in ("source_connection_id", "target_connection_id")
        if (identity := getattr(given, name)) is not None
    }
    unknown = await references.unknown(conn, workspace_id, set(named.values()))
    return [unknown_connection(word, name) for name, word in named.items() if word in unknown]


async def unknown_secrets(conn: AsyncConnection, workspace_id: UUID, content: Content) -> list[Problem]:
    """Warnings for secrets of notifications that the workspace does not have yet."""
    unknown = await references.unknown(conn, workspace_id, content.secrets)
    return [
        unknown_connection(name, f"notifications[{index}]")
        for index, notification in enumerate(content.settings.notifications)
        for name in sorted(notification.secrets & unknown)
    ]
