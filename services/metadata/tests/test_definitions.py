"""What other services ask of metadata."""

from typing import Any

from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import connections_pb2, pipelines_pb2
from headrace.metadata.v1 import definitions_pb2 as pb
from headrace_chassis.channels import call_metadata
from headrace_chassis.ids import uuid7

from .support import NOOP, Service, failure


async def _batch(
    service: Service, *ids: str, known: tuple[str, ...] = (), connections: tuple[str, ...] = ()
) -> dict[str, pb.Definition]:
    request = pb.BatchGetDefinitionsRequest(pipeline_ids=ids, known=known, connections=connections)
    answer = await service.definitions.BatchGetDefinitions(request, metadata=service.service())
    return {definition.name: definition for definition in answer.definitions}


async def test_latest_versions_come_at_once_and_unknown_ones_are_missing(service: Service) -> None:
    first = await service.create("first", max_retries=1, source_connection_id=str(uuid7()))
    second = await service.create("second", NOOP + "execution: {timeout: 90s}\n")
    update = pipelines_pb2.UpdatePipelineRequest(id=second.id, is_active=False)
    await service.pipelines.UpdatePipeline(update, metadata=service.user())
    found = await _batch(service, first.id, second.id, str(uuid7()))
    assert found.keys() == {"first", "second"}
    assert (found["first"].version, found["first"].text, found["first"].max_retries) == (1, NOOP, 1)
    assert found["first"].source_connection_id == first.source_connection_id
    assert found["first"].is_active
    assert (found["second"].version, found["second"].timeout_seconds) == (2, 90)
    assert not found["second"].is_active


async def test_texts_that_the_caller_has_are_left_out(service: Service) -> None:
    created = await service.create()
    known = await _batch(service, created.id, known=(f"{created.id}@1",))
    stale = await _batch(service, created.id, known=(f"{created.id}@2",))
    assert (known["flights"].text, stale["flights"].text) == ("", NOOP)


async def _connection(service: Service, name: str, kind: connections_pb2.ConnectionType.ValueType) -> str:
    if kind == connections_pb2.CONNECTION_TYPE_POSTGRESQL:
        place: dict[str, Any] = {"host": "h", "database": "d", "username": "u", "secret": "s"}
    else:
        place = {"path": "/data/file"}
    request = connections_pb2.CreateConnectionRequest(name=name, type=kind, **place)
    created = await service.connections.CreateConnection(request, metadata=service.user("admin"))
    return str(created.id)


async def test_limits_of_connections_come_beside_their_types(service: Service) -> None:
    lake = await _connection(service, "lake", connections_pb2.CONNECTION_TYPE_DUCKDB)
    await _connection(service, "warehouse", connections_pb2.CONNECTION_TYPE_POSTGRESQL)
    change = connections_pb2.UpdateConnectionRequest(id=lake, max_concurrent_stages=2)
    await service.connections.UpdateConnection(change, metadata=service.user("admin"))
    text = (
        f"sources: [{{id: a, connection: {lake}, table: t}}]\nsinks: [{{connection: warehouse, table: a}}]\n"
    )
    created = await service.create("p", "version: 1\n" + text)

    (own,) = (await _batch(service, created.id)).values()
    (asked,) = (await _batch(service, created.id, connections=("lake",))).values()

    limit = pb.ConnectionLimit(connection_id=lake, max_concurrent_stages=2)
    assert dict(own.connection_limits) == {lake: limit}
    assert dict(asked.connection_limits) == {lake: limit, "lake": limit}
    assert dict(own.connection_types) == {lake: "duckdb", "warehouse": "postgresql"}


async def test_types_of_connections_come_by_name_and_by_id(service: Service) -> None:
    by_id = await _connection(service, "lake", connections_pb2.CONNECTION_TYPE_DUCKDB)
    await _connection(service, "warehouse", connections_pb2.CONNECTION_TYPE_POSTGRESQL)
    await _connection(service, by_id, connections_pb2.CONNECTION_TYPE_SQLITE)  # a name that reads like an id
    text = (
        f"sources: [{{id: a, connection: {by_id}, table: t}}, {{id: b, connection: nowhere, table: t}}]\n"
        "sinks: [{input: a, connection: warehouse, table: a}, {input: b, connection: warehouse, table: b}]\n"
    )
    created = await service.create(text=text)
    plain = await service.create("plain")

    found = await _batch(service, created.id, plain.id)
    asked = await _batch(service, plain.id, connections=("lake", "nowhere", "WAREHOUSE", str(uuid7())))

    assert dict(found["flights"].connection_types) == {by_id: "sqlite", "warehouse": "postgresql"}
    assert dict(found["plain"].connection_types) == {}
    assert dict(asked["plain"].connection_types) == {"lake": "duckdb"}


async def test_a_malformed_pair_is_refused_with_its_place(service: Service) -> None:
    error = await failure(_batch(service, str(uuid7()), known=("x@y",)))
    assert [problem.path for problem in error.problems] == ["known[0]"]


async def test_definitions_of_other_tenants_do_not_exist(service: Service) -> None:
    created = await service.create()
    request = pb.BatchGetDefinitionsRequest(pipeline_ids=[created.id])
    foreign = call_metadata(service.authority.service("execution", tenant=uuid7()))
    answer = await service.definitions.BatchGetDefinitions(request, metadata=foreign)
    assert len(answer.definitions) == 0


async def test_neither_users_nor_workers_may_ask(service: Service) -> None:
    request = pb.BatchGetDefinitionsRequest(pipeline_ids=[str(uuid7())])
    for caller in (service.user("admin"), call_metadata(service.authority.worker())):
        error = await failure(service.definitions.BatchGetDefinitions(request, metadata=caller))
        assert error.reason == reasons_pb2.REASON_ROLE_REQUIRED
