"""The audit trail: each change once, with its transaction, in a chain that shows where it was changed."""

import asyncio
import hashlib
import json
from typing import Any

import asyncpg
import pytest
from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import api_keys_pb2, connections_pb2, pipelines_pb2, workspaces_pb2
from headrace.metadata.v1 import audit_pb2 as pb
from headrace_chassis.channels import call_metadata
from headrace_chassis.database import driver
from headrace_chassis.ids import uuid7
from headrace_metadata.application.audit import (
    ChainBroken,
    described_connection,
    described_pipeline,
    described_workspace,
    verify,
)
from headrace_metadata.domain.connections import Connection, ConnectionType, Endpoint
from headrace_metadata.domain.pipelines import Content, Declared, Given
from headrace_metadata.domain.workspaces import default_workspace

from .support import Service, failure

CANARY = "canary-of-the-audit"


async def _events(service: Service, *, claims: Any = None, **fields: Any) -> list[pb.AuditEvent]:
    answer = await service.audit.ListAuditEvents(
        pb.ListAuditEventsRequest(limit=200, **fields), metadata=service.user("admin", **(claims or {}))
    )
    return list(answer.data)


async def _verified(service: Service) -> int:
    async with service.base.db.read() as conn:
        return await verify(conn, service.tenant)


async def _connection(service: Service) -> connections_pb2.Connection:
    request = connections_pb2.CreateConnectionRequest(
        name="warehouse",
        type=connections_pb2.CONNECTION_TYPE_POSTGRESQL,
        host="h",
        database="d",
        username="u",
        secret=CANARY,
    )
    made: connections_pb2.Connection = await service.connections.CreateConnection(
        request, metadata=service.user("admin")
    )
    return made


async def test_every_write_says_who_did_what_to_which_fields(service: Service) -> None:
    admin = service.user("admin", subject="grace")
    workspace = await service.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(slug="sales", country="PL"), metadata=admin
    )
    await service.workspaces.UpdateWorkspace(
        workspaces_pb2.UpdateWorkspaceRequest(id=workspace.id, timezone="Europe/Warsaw"), metadata=admin
    )
    pipeline = await service.create(tags=["a"])
    await service.pipelines.UpdatePipeline(
        pipelines_pb2.UpdatePipelineRequest(id=pipeline.id, max_retries=1, cleared_fields=["tags"]),
        metadata=service.user(),
    )
    await service.pipelines.DuplicatePipeline(
        pipelines_pb2.DuplicatePipelineRequest(id=pipeline.id), metadata=service.user()
    )
    await service.pipelines.DeletePipeline(
        pipelines_pb2.DeletePipelineRequest(id=pipeline.id), metadata=service.user()
    )
    connection = await _connection(service)
    await service.connections.UpdateConnection(
        connections_pb2.UpdateConnectionRequest(id=connection.id, host="h2", secret=CANARY + "2"),
        metadata=admin,
    )
    await service.connections.DeleteConnection(
        connections_pb2.DeleteConnectionRequest(id=connection.id), metadata=admin
    )
    key = await service.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(name="ci", role=api_keys_pb2.API_KEY_ROLE_VIEWER), metadata=admin
    )
    await service.api_keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=key.id), metadata=admin)

    events = (await _events(service))[::-1]

    assert [(event.action, event.actor, " ".join(event.fields)) for event in events] == [
        ("workspace.created", "grace", "slug name country timezone deployOnPush"),
        ("workspace.updated", "grace", "timezone"),
        ("pipeline.created", "ada", "name yamlDefinition tags"),
        ("pipeline.updated", "ada", "tags maxRetries"),
        ("pipeline.created", "ada", "name yamlDefinition maxRetries"),
        ("pipeline.deleting", "ada", ""),
        ("pipeline.deleted", "ada", ""),
        ("connection.created", "ada", "name type host database username secret"),
        ("connection.updated", "grace", "host secret"),
        ("connection.deleted", "grace", ""),
        ("api_key.created", "grace", "name role"),
        ("api_key.revoked", "grace", ""),
    ]
    assert [event.sequence for event in events] == list(range(1, 13))
    assert (events[2].object_id, events[2].object_name) == (pipeline.id, "flights")
    assert CANARY not in str(events)
    assert key.key not in str(events)
    assert await _verified(service) == 12


def test_whatever_can_be_written_is_known_to_the_trail() -> None:
    content = Content("n", "t", Given(), Declared())
    endpoint = Endpoint(ConnectionType.FILE)
    connection = Connection(uuid7(), uuid7(), uuid7(), "n", None, endpoint, None, False, "ada")
    workspace = default_workspace(uuid7(), uuid7())
    for request, known in (
        (pipelines_pb2.CreatePipelineRequest, described_pipeline(content, "Ada").keys()),
        (connections_pb2.CreateConnectionRequest, described_connection(connection).keys() | {"secret"}),
        (workspaces_pb2.CreateWorkspaceRequest, described_workspace(workspace).keys()),
    ):
        names = {field.json_name for field in request.DESCRIPTOR.fields} - {"workspaceId"}
        assert names == set(known)


async def test_what_changes_nothing_or_fails_or_is_repeated_is_not_recorded(service: Service) -> None:
    pipeline = await service.create()
    same = pipelines_pb2.UpdatePipelineRequest(id=pipeline.id, name=pipeline.name)
    await service.pipelines.UpdatePipeline(same, metadata=service.user())
    await failure(service.create())  # the name is taken
    request = workspaces_pb2.CreateWorkspaceRequest(slug="once")
    for _ in range(2):
        await service.workspaces.CreateWorkspace(request, metadata=service.user("admin", key="k"))
    assert [event.action for event in await _events(service)] == ["workspace.created", "pipeline.created"]


async def test_the_request_and_the_service_in_between_are_known(service: Service) -> None:
    token = service.authority.service("git", tenant=service.tenant, on_behalf_of="ada")
    metadata = (*call_metadata(token), ("x-request-id", "r-17"))
    await service.pipelines.CreatePipeline(
        pipelines_pb2.CreatePipelineRequest(name="by git", yaml_definition="sources: []"), metadata=metadata
    )
    (event,) = await _events(service)
    assert (event.actor, event.via, event.request_id) == ("ada", "service:git", "r-17")


async def test_many_writers_at_once_make_one_chain_without_gaps(service: Service) -> None:
    await asyncio.gather(*(service.create(f"p{number}") for number in range(20)))
    assert await _verified(service) == 20


async def test_anybody_can_check_the_chain_by_the_formula_of_the_contract(service: Service) -> None:
    await service.create("Żółw „1” \\ \n".strip())
    await service.create("b")
    previous = ""
    for event in (await _events(service))[::-1]:
        content = [
            previous,
            str(service.tenant),
            event.sequence,
            event.at.ToMicroseconds(),
            event.actor,
            event.via,
            event.action,
            event.object_type,
            event.object_id,
            event.object_name,
            event.workspace_id,
            event.request_id,
            list(event.fields),
        ]
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        assert (event.previous_hash, event.hash) == (previous, hashlib.sha256(text.encode()).hexdigest())
        previous = event.hash


@pytest.mark.parametrize(
    ("tampering", "place"),
    [
        ("UPDATE audit_event SET actor = 'mallory' WHERE tenant = $1 AND sequence = 2", 2),
        ("DELETE FROM audit_event WHERE tenant = $1 AND sequence = 2", 2),
        ("DELETE FROM audit_event WHERE tenant = $1 AND sequence = 3", 3),
        ("UPDATE audit_event SET sequence = 9 WHERE tenant = $1 AND sequence = 3", 3),
    ],
)
async def test_tampering_shows(service: Service, tampering: str, place: int) -> None:
    for name in ("a", "b", "c"):
        await service.create(name)
    async with service.base.db.transaction() as conn:
        with pytest.raises(asyncpg.RestrictViolationError):
            async with driver(conn).transaction():
                await driver(conn).execute(tampering, service.tenant)
        # Somebody with the rights of the tables' owner can still do it.
        await driver(conn).execute("ALTER TABLE audit_event DISABLE TRIGGER audit_event_immutable")
        await driver(conn).execute(tampering, service.tenant)
        await driver(conn).execute("ALTER TABLE audit_event ENABLE TRIGGER audit_event_immutable")
    with pytest.raises(ChainBroken, match=f"at {place}$"):
        await _verified(service)


async def test_filters_and_pages(service: Service) -> None:
    made = [await service.create(f"p{number}") for number in range(5)]
    await _connection(service)
    assert {event.object_type for event in await _events(service, object_type="connection")} == {"connection"}
    assert [event.object_id for event in await _events(service, object_id=made[3].id)] == [made[3].id]
    assert len(await _events(service, actor="ada", action="pipeline.created")) == 5
    assert await _events(service, actor="nobody") == []
    all_events = await _events(service)
    assert [event.sequence for event in await _events(service, since=all_events[1].at)] == [6, 5]
    assert [event.sequence for event in await _events(service, until=all_events[4].at)] == [1]
    seen, cursor = [], ""
    while True:
        page = await service.audit.ListAuditEvents(
            pb.ListAuditEventsRequest(limit=4, cursor=cursor, include_total=True),
            metadata=service.user("admin"),
        )
        seen += [event.sequence for event in page.data]
        assert page.meta.total == 6
        cursor = page.meta.next_cursor
        if not cursor:
            break
    assert seen == [6, 5, 4, 3, 2, 1]


async def test_admins_of_some_workspaces_see_what_was_done_in_these(service: Service) -> None:
    mine = await service.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(slug="mine"), metadata=service.user("admin")
    )
    await service.create("outside")
    inside = await service.create("inside", workspace_id=mine.id)
    claims = {"workspaces": [mine.id]}
    assert [event.object_id for event in await _events(service, claims=claims)] == [inside.id, mine.id]
    assert [event.object_id for event in await _events(service, workspace_id=mine.id)] == [inside.id, mine.id]
    assert await _events(service, claims={"tenant": uuid7()}) == []
    other = service.audit.ListAuditEvents(
        pb.ListAuditEventsRequest(workspace_id=str(uuid7())), metadata=service.user("admin")
    )
    assert (await failure(other)).reason == reasons_pb2.REASON_NOT_FOUND
