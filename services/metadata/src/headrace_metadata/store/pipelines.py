"""Pipelines and their versions in SQL. Every read leaves out deleted pipelines and those of other tenants."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.connections import NamedConnection
from headrace_metadata.domain.deletion import Deletion
from headrace_metadata.domain.names import slug_candidates
from headrace_metadata.domain.pipelines import (
    Content,
    Creator,
    Declared,
    Given,
    LastRun,
    Notification,
    Pipeline,
    Version,
)
from headrace_metadata.store.connection_words import named_connections, types_by_word
from headrace_metadata.store.scope import Scope, newest_of_scope
from headrace_metadata.store.searching import like_pattern
from headrace_metadata.store.tables import AnyRow
from headrace_metadata.store.tables import connection_reference as reference
from headrace_metadata.store.tables import pipeline as head
from headrace_metadata.store.tables import pipeline_status as status
from headrace_metadata.store.tables import pipeline_version as version

# A literal and no parameter: only so does PostgreSQL know that the partial indexes apply.
ALIVE: Final = head.c.deletion != sa.literal_column(f"'{Deletion.DELETED}'")
# What may be large: lists and runs do without.
_LARGE: Final = (version.c.text, version.c.layout)
_NO_LAYOUT: Final = sa.null().label("layout")
_NOT_LARGE: Final = (sa.literal("").label("text"), _NO_LAYOUT)
_GIVEN_FIELDS = tuple(field.name for field in fields(Given))


@dataclass(frozen=True)
class Filters:
    """What a list of pipelines is narrowed by; all that are given must hold."""

    search: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()
    status: str = ""


@dataclass(frozen=True)
class Place:
    """A place in the list, newest first: the pipeline right before the next page."""

    created_at: datetime
    id: UUID


@dataclass(frozen=True)
class Runnable:
    """The latest version of a pipeline as a run needs it; `connections` are by name and id."""

    workspace_id: UUID
    version: Version
    connections: Mapping[str, NamedConnection]


async def add(
    conn: AsyncConnection,
    identity: UUID,
    tenant: UUID,
    workspace_id: UUID,
    content: Content,
    creator: Creator,
) -> bool:
    """Adds a pipeline at version 1; False where its name is taken, also by a transaction that commits right
    now."""
    if not await _add_head(conn, identity, tenant, workspace_id, content, creator):
        return False
    await _add_version(conn, identity, tenant, 1, content, creator.subject)
    await conn.execute(
        sa.insert(status).values(
            pipeline_id=identity, tenant=tenant, workspace_id=workspace_id, created_at=sa.func.now()
        )
    )
    return True


async def _add_head(
    conn: AsyncConnection,
    identity: UUID,
    tenant: UUID,
    workspace_id: UUID,
    content: Content,
    creator: Creator,
) -> bool:
    for slug in slug_candidates(content.name, identity):
        # No conflict target: either of name and slug may be taken, and this waits for others that add them
        # now.
        added = await conn.execute(
            insert(head)
            .values(
                id=identity,
                tenant=tenant,
                workspace_id=workspace_id,
                name=content.name,
                slug=slug,
                version=1,
                tags=list(content.settings.tags),
                created_by=creator.subject,
                created_by_label=creator.label,
            )
            .on_conflict_do_nothing()
        )
        if added.rowcount == 1:
            return True
        if await name_is_taken(conn, workspace_id, content.name):
            return False
    raise RuntimeError(f"no slug is free for pipeline {identity}")


async def name_is_taken(conn: AsyncConnection, workspace_id: UUID, name: str) -> bool:
    """Whether a live pipeline of the workspace has this name."""
    found = sa.select(sa.literal(True)).where(head.c.workspace_id == workspace_id, head.c.name == name, ALIVE)
    return (await conn.scalar(found)) is not None


async def add_version(conn: AsyncConnection, before: Pipeline, content: Content, created_by: str) -> None:
    """Makes the next version of a locked pipeline.

    Raises:
        sqlalchemy.exc.IntegrityError: on pipeline_name_key, where another pipeline took the new name
        meanwhile.
    """
    number = before.version + 1
    moved = await conn.execute(
        sa.update(head)
        .where(head.c.id == before.id, head.c.tenant == before.tenant, head.c.version == before.version)
        .values(
            version=number,
            name=content.name,
            tags=list(content.settings.tags),
            updated_at=sa.func.now(),
        )
    )
    if moved.rowcount != 1:
        raise RuntimeError(f"pipeline {before.id} was not locked at version {before.version}")
    await _add_version(conn, before.id, before.tenant, number, content, created_by)


async def _add_version(
    conn: AsyncConnection, identity: UUID, tenant: UUID, number: int, content: Content, created_by: str
) -> None:
    values = {name: getattr(content.given, name) for name in _GIVEN_FIELDS}
    values["tags"] = None if content.given.tags is None else list(content.given.tags)
    if content.given.notifications is not None:
        values["notifications"] = [asdict(notification) for notification in content.given.notifications]
    await conn.execute(
        sa.insert(version).values(
            pipeline_id=identity,
            version=number,
            tenant=tenant,
            name=content.name,
            text=content.text,
            declared={name: value for name, value in asdict(content.declared).items() if value is not None},
            created_by=created_by,
            **values,
        )
    )


async def get(conn: AsyncConnection, scope: Scope, pipeline_id: UUID) -> Pipeline | None:
    """The pipeline at its latest version, with its text and layout."""
    row = (await conn.execute(_by_id(scope, pipeline_id))).one_or_none()
    return None if row is None else _pipeline(row)


async def lock(conn: AsyncConnection, scope: Scope, pipeline_id: UUID) -> Pipeline | None:
    """The pipeline at its latest version, locked against other writers until the end of the transaction."""
    # The lock comes first: a statement that waits for it would join the version that was latest before the
    # wait.
    held = await conn.scalar(
        sa.select(head.c.id)
        .where(head.c.id == pipeline_id, scope.holds(head.c.tenant, head.c.workspace_id), ALIVE)
        .with_for_update()
    )
    return None if held is None else await get(conn, scope, pipeline_id)


async def page(
    conn: AsyncConnection, scope: Scope, filters: Filters, after: Place | None, offset: int, limit: int
) -> Sequence[Pipeline]:
    """Pipelines in scope without their text and layout, newest first, from `after` or `offset` on."""
    # A filter by status walks the index of the status table; without one, that of the heads.
    table, key = (status, status.c.pipeline_id) if filters.status else (head, head.c.id)
    conditions = _conditions(filters)
    if after is not None:
        conditions.append(sa.tuple_(table.c.created_at, key) < sa.tuple_(after.created_at, after.id))
    keys = newest_of_scope(
        scope,
        columns=(head.c.id, head.c.created_at),
        tenant=table.c.tenant,
        workspace=table.c.workspace_id,
        order=(table.c.created_at.desc(), key.desc()),
        conditions=conditions,
        source=_with_status() if filters.status else head,
        reach=offset + limit,
    )
    chosen = (
        sa.select(keys)
        .order_by(keys.c.created_at.desc(), keys.c.id.desc())
        .offset(offset)
        .limit(limit)
        .subquery()
    )
    statement = (
        sa.select(*_COLUMNS, *_NOT_LARGE)
        .select_from(chosen.join(_joined(), head.c.id == chosen.c.id))
        .order_by(head.c.created_at.desc(), head.c.id.desc())
    )
    return [_pipeline(row) for row in await conn.execute(statement)]


async def count(conn: AsyncConnection, scope: Scope, filters: Filters) -> int:
    """How many pipelines in scope the filters leave."""
    source = _with_status() if filters.status else head
    counted = (
        sa.select(sa.func.count())
        .select_from(source)
        .where(scope.holds(head.c.tenant, head.c.workspace_id), *_conditions(filters))
    )
    return int(await conn.scalar(counted) or 0)


async def versions(
    conn: AsyncConnection, tenant: UUID, pipeline_id: UUID, before: int | None, limit: int
) -> Sequence[Version]:
    """Versions without their text and layout, newest first, below `before`."""
    statement = (
        sa.select(*_VERSION_COLUMNS, *_NOT_LARGE)
        .where(version.c.pipeline_id == pipeline_id, version.c.tenant == tenant)
        .order_by(version.c.version.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(version.c.version < before)
    return [_version(row) for row in await conn.execute(statement)]


async def get_version(conn: AsyncConnection, tenant: UUID, pipeline_id: UUID, number: int) -> Version | None:
    """One version with its text and layout."""
    statement = sa.select(*_VERSION_COLUMNS, *_LARGE).where(
        version.c.pipeline_id == pipeline_id, version.c.tenant == tenant, version.c.version == number
    )
    row = (await conn.execute(statement)).one_or_none()
    return None if row is None else _version(row)


async def latest(
    conn: AsyncConnection,
    tenant: UUID,
    pipeline_ids: Iterable[UUID],
    known: Iterable[tuple[UUID, int]],
    words: Collection[str] = (),
) -> Sequence[Runnable]:
    """The latest versions of several pipelines; those known come without their text.

    `words` are names and ids of connections whose types are wanted beside those that the versions refer to.
    """
    pairs = list(known)
    values: dict[str, object] = {
        "tenant": tenant,
        "pipelines": list(pipeline_ids),
        "known_ids": [pipeline_id for pipeline_id, _ in pairs],
        "known_versions": [number for _, number in pairs],
    }
    if words:
        values["words"] = list(words)
    rows = await conn.execute(_LATEST_AND_ASKED if words else _LATEST, values)
    return [
        Runnable(row.workspace_id, _version(row), named_connections(row.asked_types, row.own_types))
        for row in rows
    ]


def _conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [ALIVE]
    if filters.search:
        # Both sides are lowered by the database, so that its idea of case is the only one.
        pattern = sa.func.lower(sa.literal(like_pattern(filters.search)))
        conditions.append(sa.func.lower(head.c.name).like(pattern, escape="\\"))
    if filters.name:
        conditions.append(head.c.name == filters.name)
    if filters.tags:
        conditions.append(head.c.tags.contains(list(filters.tags)))
    if filters.status:
        conditions.append(status.c.status == filters.status)
    return conditions


_VERSION_COLUMNS: Final = tuple(
    column.label("version_created_by" if column.name == "created_by" else "version_created_at")
    if column.name in ("created_by", "created_at")
    else column.label("number")
    if column.name == "version"
    else column
    for column in version.c
    if column.name not in ("text", "layout", "tenant")
)
_COLUMNS: Final = (
    head.c.id,
    head.c.tenant,
    head.c.workspace_id,
    head.c.deletion,
    head.c.created_at,
    head.c.updated_at,
    head.c.created_by,
    head.c.created_by_label,
    status.c.status,
    status.c.run_id,
    status.c.run_accepted_at,
    status.c.run_finished_at,
    status.c.next_run_at,
    *_VERSION_COLUMNS,
)


def _with_version() -> sa.FromClause:
    return head.join(
        version, sa.and_(version.c.pipeline_id == head.c.id, version.c.version == head.c.version)
    )


def _with_status() -> sa.FromClause:
    return head.join(status, status.c.pipeline_id == head.c.id)


def _joined() -> sa.FromClause:
    return _with_version().join(status, status.c.pipeline_id == head.c.id)


def _by_id(scope: Scope, pipeline_id: UUID) -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(*_COLUMNS, *_LARGE)
        .select_from(_joined())
        .where(head.c.id == pipeline_id, scope.holds(head.c.tenant, head.c.workspace_id), ALIVE)
    )


def _pipeline(row: AnyRow) -> Pipeline:
    last_run = None
    if row.run_id is not None:
        last_run = LastRun(row.run_id, row.status, row.run_accepted_at, row.run_finished_at)
    return Pipeline(
        id=row.id,
        tenant=row.tenant,
        workspace_id=row.workspace_id,
        latest=_version(row),
        status=row.status,
        last_run=last_run,
        next_run_at=row.next_run_at,
        closing=row.deletion == Deletion.CLOSING,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.created_by,
        created_by_label=row.created_by_label,
    )


def _version(row: AnyRow) -> Version:
    given = {name: getattr(row, name) for name in _GIVEN_FIELDS}
    return Version(
        pipeline_id=row.pipeline_id,
        number=row.number,
        content=Content(
            name=row.name,
            text=row.text,
            given=Given(**_tupled(given)),
            declared=Declared(**_tupled(row.declared)),
        ),
        created_at=row.version_created_at,
        created_by=row.version_created_by,
    )


def _tupled(values: dict[str, Any]) -> dict[str, Any]:
    """The lists of arrays and JSON as the tuples and dataclasses of the domain."""
    tupled = dict(values)
    if tupled.get("tags") is not None:
        tupled["tags"] = tuple(tupled["tags"])
    if tupled.get("notifications") is not None:
        tupled["notifications"] = tuple(
            Notification(tuple(each["on"]), each["type"], each["target"], each.get("signing_secret"))
            for each in tupled["notifications"]
        )
    return tupled


def _latest(asked_types: sa.ColumnElement[Any]) -> sa.Select[*tuple[Any, ...]]:
    known = (
        sa.func.unnest(
            sa.bindparam("known_ids", type_=ARRAY(sa.Uuid)),
            sa.bindparam("known_versions", type_=ARRAY(sa.Integer)),
        )
        .table_valued(sa.column("id", sa.Uuid), sa.column("version", sa.Integer), name="known")
        .render_derived()
    )
    is_known = sa.exists().where(known.c.id == head.c.id, known.c.version == head.c.version)
    own = types_by_word(reference.c.reference, head.c.workspace_id, reference.c.pipeline_id == head.c.id)
    return (
        sa.select(
            head.c.workspace_id,
            *_VERSION_COLUMNS,
            sa.case((is_known, ""), else_=version.c.text).label("text"),
            _NO_LAYOUT,
            own.correlate(head).scalar_subquery().label("own_types"),
            asked_types.label("asked_types"),
        )
        .select_from(_with_version())
        .where(
            head.c.id == sa.any_(sa.bindparam("pipelines", type_=ARRAY(sa.Uuid))),
            head.c.tenant == sa.bindparam("tenant", type_=sa.Uuid),
            ALIVE,
        )
    )


def _asked_types() -> sa.ColumnElement[Any]:
    listed = sa.func.unnest(sa.bindparam("words", type_=ARRAY(sa.Text)))
    asked = listed.table_valued("word", name="asked").render_derived()
    return types_by_word(asked.c.word, head.c.workspace_id).correlate(head).scalar_subquery()


# Built once: every batch of runs asks, and building it took as long as its answer.
_LATEST: Final = _latest(sa.null())
_LATEST_AND_ASKED: Final = _latest(_asked_types())
