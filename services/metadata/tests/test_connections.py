"""Connections: who may what, what is checked, and that secrets stay inside."""

import asyncio
from typing import Any

import pytest
from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import internal_pb2
from headrace.metadata.v1 import connections_pb2 as pb
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.errors import HeadraceError
from headrace_chassis.ids import uuid7
from headrace_metadata.keyring import Keyring
from headrace_metadata.loops.secret_rotator import SecretRotator

from .support import Service, away, failure, keyring_json

CANARY = "canary-5f1c-secret"
WAREHOUSE: dict[str, Any] = {
    "name": "warehouse",
    "type": pb.CONNECTION_TYPE_POSTGRESQL,
    "host": "db.internal",
    "database": "dwh",
    "username": "loader",
}


async def _create(service: Service, role: str = "admin", **fields: Any) -> pb.Connection:
    request = pb.CreateConnectionRequest(**{**WAREHOUSE, **fields})
    created: pb.Connection = await service.connections.CreateConnection(request, metadata=service.user(role))
    return created


async def _update(service: Service, role: str, identity: str, **fields: Any) -> pb.Connection:
    request = pb.UpdateConnectionRequest(id=identity, **fields)
    updated: pb.Connection = await service.connections.UpdateConnection(request, metadata=service.user(role))
    return updated


async def _resolve(service: Service, workspace: str, *words: str) -> list[definitions_pb2.ResolvedConnection]:
    request = definitions_pb2.ResolveConnectionsRequest(workspace_id=workspace, connections=words)
    answer = await service.definitions.ResolveConnections(request, metadata=service.service())
    return list(answer.connections)


async def test_a_secret_is_sealed_at_rest_and_opens_for_services_alone(service: Service) -> None:
    created = await _create(service, secret=CANARY)
    (row,) = await service.rows("SELECT * FROM connection WHERE id = $1", created.id)
    assert created.has_secret
    assert CANARY.encode() not in b"".join(repr(value).encode() for value in row.values())
    (resolved,) = await _resolve(service, created.workspace_id, "warehouse")
    assert (resolved.secret, resolved.type, resolved.host) == (CANARY, "postgresql", "db.internal")
    refused = await failure(
        service.definitions.ResolveConnections(
            definitions_pb2.ResolveConnectionsRequest(workspace_id=created.workspace_id, connections=["x"]),
            metadata=service.user("admin"),
        )
    )
    assert refused.reason == reasons_pb2.REASON_ROLE_REQUIRED


async def test_connections_resolve_by_name_and_id_within_their_workspace(service: Service) -> None:
    created = await _create(service)
    found = await _resolve(service, created.workspace_id, "warehouse", created.id, "nobody")
    assert sorted(each.reference for each in found) == sorted(["warehouse", created.id])
    assert await _resolve(service, str(uuid7()), "warehouse", created.id) == []


@pytest.mark.parametrize("given", [{"secret": "x"}, {"secret_ref": "env://HEADRACE_SECRET_X"}])
async def test_giving_a_secret_demands_an_admin(service: Service, given: dict[str, str]) -> None:
    assert (await failure(_create(service, "editor", **given))).reason == reasons_pb2.REASON_ROLE_REQUIRED
    plain = await _create(service, "editor")
    error = await failure(_update(service, "editor", plain.id, **given))
    assert error.reason == reasons_pb2.REASON_ROLE_REQUIRED


async def test_clearing_a_secret_demands_an_admin(service: Service) -> None:
    created = await _create(service, secret=CANARY)
    error = await failure(_update(service, "editor", created.id, cleared_fields=["secret"]))
    assert error.reason == reasons_pb2.REASON_ROLE_REQUIRED
    cleared = await _update(service, "admin", created.id, cleared_fields=["secret"])
    assert not cleared.has_secret
    (resolved,) = await _resolve(service, created.workspace_id, "warehouse")
    assert resolved.secret == ""


@pytest.mark.parametrize(
    "change",
    [
        {"host": "evil.example"},
        {"port": 6543},
        {"options": {"sslmode": "disable"}},
        {"cleared_fields": ["port"]},
    ],
)
@pytest.mark.parametrize("kept", [{"secret": CANARY}, {"secret_ref": "env://HEADRACE_SECRET_X"}])
async def test_pointing_elsewhere_demands_the_secret_again(
    service: Service, change: dict[str, Any], kept: dict[str, str]
) -> None:
    created = await _create(service, port=5432, **kept)
    error = await failure(_update(service, "admin", created.id, **change))
    assert error.reason == reasons_pb2.REASON_SECRET_REQUIRED
    changed = await _update(service, "admin", created.id, **change, secret="again")
    assert changed.has_secret
    assert not changed.HasField("secret_ref")


async def test_what_does_not_lead_elsewhere_keeps_the_secret(service: Service) -> None:
    created = await _create(service, secret=CANARY)
    await _update(
        service, "editor", created.id, description="d", database="other", name="wh", host="db.internal"
    )
    (resolved,) = await _resolve(service, created.workspace_id, "wh")
    assert (resolved.secret, resolved.database) == (CANARY, "other")


async def test_an_update_without_a_change_tells_nobody(service: Service) -> None:
    created = await _create(service)
    same = await _update(service, "editor", created.id, host="db.internal")
    assert same == created
    assert [event.type for event in await service.events()] == ["io.headrace.connection.created.v1"]


@pytest.mark.parametrize(
    ("fields", "code", "path"),
    [
        ({"host": None}, "REQUIRED", "host"),
        ({"path": "/x"}, "NOT_ALLOWED", "path"),
        ({"host": "http://db"}, "INVALID_VALUE", "host"),
        ({"host": "u:p@db"}, "INVALID_VALUE", "host"),
        ({"options": {"sslmod": "require"}}, "UNKNOWN_OPTION", "options.sslmod"),
        ({"options": {"sslmode": "yes"}}, "INVALID_VALUE", "options.sslmode"),
        ({"options": {"password": CANARY}}, "LITERAL_SECRET", "options.password"),
        ({"options": {"search_path": f"x://u:{CANARY}@h"}}, "LITERAL_SECRET", "options.search_path"),
        ({"options": {"service": "x"}}, "UNKNOWN_OPTION", "options.service"),
        ({"secret": "env://HEADRACE_SECRET_X"}, "INVALID_VALUE", "secret"),
        ({"secret": "a", "secret_ref": "env://HEADRACE_SECRET_X"}, "NOT_ALLOWED", "secretRef"),
        ({"secret_ref": "vault://secret/db"}, "INVALID_REFERENCE", "secretRef"),
        ({"secret_ref": "sales-db"}, "INVALID_REFERENCE", "secretRef"),
        ({"name": "a\nb"}, "INVALID_NAME", "name"),
    ],
)
async def test_wrong_fields_are_refused_with_their_place(
    service: Service, fields: dict[str, Any], code: str, path: str
) -> None:
    given = {name: value for name, value in {**WAREHOUSE, **fields}.items() if value is not None}
    request = pb.CreateConnectionRequest(**given)
    error = await failure(service.connections.CreateConnection(request, metadata=service.user("admin")))
    assert error.reason == reasons_pb2.REASON_INVALID_REQUEST
    assert (code, path) in [(problem.code, problem.path) for problem in error.problems]
    assert CANARY not in repr((error.message, error.problems))


@pytest.mark.parametrize(
    "reference",
    ["env://PATH", "env://HEADRACE_SECRET_", "file:///etc/shadow", "file:///run/secrets/../shadow"],
)
async def test_references_outside_what_the_operator_allows_are_forbidden(
    service: Service, reference: str
) -> None:
    error = await failure(_create(service, secret_ref=reference))
    assert error.reason == reasons_pb2.REASON_SECRET_REFERENCE_FORBIDDEN


@pytest.mark.parametrize("reference", ["env://HEADRACE_SECRET_DB", "file:///run/secrets/db"])
async def test_allowed_references_are_handed_on_as_they_are(service: Service, reference: str) -> None:
    created = await _create(service, secret_ref=reference)
    (resolved,) = await _resolve(service, created.workspace_id, "warehouse")
    assert (created.secret_ref, resolved.secret_ref, resolved.secret) == (reference, reference, "")


async def test_of_many_creations_of_one_name_one_wins(service: Service) -> None:
    results = await asyncio.gather(*(_create(service) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(result, pb.Connection) for result in results) == 1


async def test_a_connection_in_use_is_named_and_stays_unless_forced(service: Service) -> None:
    by_name, by_id, unused = [await _create(service, name=name) for name in ("one", "two", "three")]
    text = "sources:\n  - {id: a, connection: one, table: t}\nsinks:\n  - {input: a, discard: true}\n"
    await service.create("uses one", text)
    await service.create("uses two", source_connection_id=by_id.id)

    async def delete(identity: str, *, force: bool = False) -> None:
        request = pb.DeleteConnectionRequest(id=identity, force=force)
        await service.connections.DeleteConnection(request, metadata=service.user())

    for identity, user in ((by_name.id, "uses one"), (by_id.id, "uses two")):
        error = await failure(delete(identity))
        assert error.reason == reasons_pb2.REASON_IN_USE
        assert user in error.message
    await delete(unused.id)
    await delete(by_name.id, force=True)
    answer = await service.connections.ListConnections(pb.ListConnectionsRequest(), metadata=service.user())
    assert [connection.name for connection in answer.data] == ["two"]


async def test_lists_filter_and_page_by_name(service: Service) -> None:
    for name in ("b", "a", "C"):
        await _create(service, name=name)
    await _create(
        service,
        name="files",
        type=pb.CONNECTION_TYPE_FILE,
        path="/d",
        host=None,
        database=None,
        username=None,
    )

    async def names(**filters: Any) -> list[str]:
        answer = await service.connections.ListConnections(
            pb.ListConnectionsRequest(**filters), metadata=service.user("viewer")
        )
        return [connection.name for connection in answer.data]

    every = await names()
    assert sorted(every) == ["C", "a", "b", "files"]
    assert await names(search="c") == ["C"]
    assert await names(type=pb.CONNECTION_TYPE_FILE) == ["files"]
    first = await service.connections.ListConnections(
        pb.ListConnectionsRequest(limit=3, include_total=True), metadata=service.user("viewer")
    )
    assert first.meta.total == 4
    assert [c.name for c in first.data] + await names(cursor=first.meta.next_cursor) == every


async def test_rotation_seals_all_secrets_anew_and_they_stay_the_same(service: Service) -> None:
    created = [await _create(service, name=f"c{i}", secret=f"{CANARY}-{i}") for i in range(3)]
    new_ring = Keyring.parse(keyring_json("k2", "k1", "k2"))
    rotator = SecretRotator(service.base.db, new_ring)
    while await rotator.run_once():
        pass
    rows = await service.rows("SELECT secret_key_id FROM connection WHERE tenant = $1", service.tenant)
    assert {row["secret_key_id"] for row in rows} == {"k2"}
    service.parts.keyring.__dict__.update(Keyring.parse(keyring_json("k2", "k2")).__dict__)
    found = await _resolve(service, created[0].workspace_id, *(each.name for each in created))
    assert sorted(each.secret for each in found) == [f"{CANARY}-{i}" for i in range(3)]


async def test_a_row_copied_over_another_does_not_open(service: Service) -> None:
    first = await _create(service, name="first", secret="one")
    second = await _create(service, name="second", secret="two")
    await service.rows(
        """UPDATE connection AS b SET secret_nonce = a.secret_nonce, secret_ciphertext = a.secret_ciphertext
           FROM connection AS a WHERE a.id = $1 AND b.id = $2""",
        first.id,
        second.id,
    )
    error = await failure(_resolve(service, first.workspace_id, "second"))
    assert error.reason == reasons_pb2.REASON_INTERNAL


async def test_a_test_asks_a_worker_on_the_users_behalf(service: Service) -> None:
    created = await _create(service)
    service.execution.answer = {
        "success": True,
        "message": "ok",
        "latencyMs": 15,
        "serverVersion": "16.2",
        "schemas": ["public", "staging"],
        "tables": 45,
    }
    answer = await service.connections.TestConnection(
        pb.TestConnectionRequest(id=created.id), metadata=service.user()
    )
    assert (answer.success, answer.latency_ms, answer.server_version) == (True, 15, "16.2")
    assert (list(answer.details.schemas), answer.details.tables) == (["public", "staging"], 45)
    assert service.execution.callers == [("service:metadata", service.tenant, "ada")]
    (probe,) = service.execution.probes
    assert (probe.kind, probe.connection_id) == (internal_pb2.PROBE_KIND_TEST, created.id)


async def test_a_system_that_cannot_be_reached_is_an_answer(service: Service) -> None:
    created = await _create(service)
    service.execution.answer = {"success": False, "message": "refused", "code": "UNREACHABLE"}
    answer = await service.connections.TestConnection(
        pb.TestConnectionRequest(id=created.id), metadata=service.user()
    )
    assert (answer.success, answer.code) == (False, "UNREACHABLE")
    assert not answer.HasField("latency_ms")


@pytest.mark.parametrize(
    "raised",
    [
        HeadraceError("no worker took it", reason=reasons_pb2.REASON_NO_WORKER, may_repeat=False),
        away(),
    ],
)
async def test_failures_of_execution_reach_the_caller(service: Service, raised: HeadraceError) -> None:
    created = await _create(service)
    service.execution.failure = raised
    error = await failure(
        service.connections.TestConnection(pb.TestConnectionRequest(id=created.id), metadata=service.user())
    )
    assert error.reason == raised.reason


@pytest.mark.parametrize("answer", [b"", b"\xff", b"[1]", b"{}", b'{"message": "ok"}', b'{"tables": null}'])
async def test_an_answer_that_makes_no_sense_is_told_as_such(service: Service, answer: bytes) -> None:
    created = await _create(service)
    service.execution.answer = answer
    test = pb.TestConnectionRequest(id=created.id)
    tables = pb.ListConnectionTablesRequest(id=created.id)
    for call in (
        service.connections.TestConnection(test, metadata=service.user()),
        service.connections.ListConnectionTables(tables, metadata=service.user()),
    ):
        error = await failure(call)
        assert (error.reason, "sound answer" in error.message) == (reasons_pb2.REASON_UNAVAILABLE, True)


async def test_tables_come_in_pages_as_the_worker_told_them(service: Service) -> None:
    created = await _create(service)
    table = {
        "schema": "public",
        "name": "t",
        "kind": "TABLE",
        "estimatedRows": 5,
        "columns": [{"name": "id", "type": "bigint", "nullable": False}],
    }
    service.execution.answer = {"tables": [table], "after": "public.t"}
    request = pb.ListConnectionTablesRequest(id=created.id, limit=1)
    page = await service.connections.ListConnectionTables(request, metadata=service.user("viewer"))
    assert (page.data[0].name, page.data[0].columns[0].type, page.data[0].estimated_rows) == (
        "t",
        "bigint",
        5,
    )
    service.execution.answer = {"tables": []}
    request.cursor = page.meta.next_cursor
    last = await service.connections.ListConnectionTables(request, metadata=service.user("viewer"))
    assert not last.meta.HasField("next_cursor")
    assert [probe.after for probe in service.execution.probes] == ["", "public.t"]


async def test_tables_of_a_system_that_cannot_be_read_are_a_precise_error(service: Service) -> None:
    created = await _create(service)
    service.execution.answer = {
        "error": {"code": "WRONG_PASSWORD", "class": "CONFIGURATION", "message": "the login was refused"}
    }
    request = pb.ListConnectionTablesRequest(id=created.id)
    error = await failure(service.connections.ListConnectionTables(request, metadata=service.user("viewer")))
    assert [problem.code for problem in error.problems] == ["WRONG_PASSWORD"]


async def test_no_secret_shows_in_answers_events_logs_or_the_database(
    service: Service, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    created = await _create(service, secret=CANARY)
    updated = await _update(service, "admin", created.id, secret=CANARY + "2", description="d")
    await failure(_create(service, secret=CANARY))
    await failure(_create(service, name="b", secret=CANARY, options={"x": "y"}))
    listed = await service.connections.ListConnections(pb.ListConnectionsRequest(), metadata=service.user())
    told = [repr(each) for each in (created, updated, listed, *await service.events(), service.parts.keyring)]
    tables = [
        row["tablename"]
        for row in await service.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    for table in tables:
        told += [row[0] for row in await service.rows(f'SELECT t::text FROM "{table}" AS t')]
    output = capfd.readouterr()
    everything = "\n".join([*told, output.out, output.err, caplog.text])
    forms = (CANARY, CANARY.encode().hex())
    assert [form for form in forms if form in everything] == []


async def test_a_limit_on_stages_is_kept_changed_and_cleared(service: Service) -> None:
    created = await _create(service, max_concurrent_stages=3)
    changed = await _update(service, "editor", created.id, max_concurrent_stages=5)
    kept = await _update(service, "editor", created.id, description="d")
    cleared = await _update(service, "editor", created.id, cleared_fields=["max_concurrent_stages"])
    assert [each.max_concurrent_stages for each in (created, changed, kept)] == [3, 5, 5]
    assert not cleared.HasField("max_concurrent_stages")


@pytest.mark.parametrize("limit", [0, -1, 10_001])
async def test_a_limit_on_stages_is_at_least_one(service: Service, limit: int) -> None:
    error = await failure(_create(service, max_concurrent_stages=limit))
    assert [problem.path for problem in error.problems] == ["maxConcurrentStages"]
