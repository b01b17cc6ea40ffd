"""Pipelines: versions, names, settings, lists."""

import asyncio
from typing import Any

import pytest
from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import definitions_pb2, workspaces_pb2
from headrace.metadata.v1 import pipelines_pb2 as pb
from headrace_chassis.ids import uuid7

from .support import NOOP, Service, failure

EXAMPLE = "version: 1\nsource:\n  connection: teradata-prod\ntarget:\n  connection: snowflake-dwh\n"

JOINED = """
sources:
  - {id: n, values: [{x: 1}]}
transformations:
  - {id: sums, type: sql_transform, inputs: [n], sql: "SELECT x * 2 AS twice FROM n"}
sinks:
  - {input: sums, discard: true}
"""


def _notification(
    on: "pb.PipelineStatus.ValueType", kind: "pb.NotificationType.ValueType", target: str
) -> pb.Notification:
    return pb.Notification(on=[on], type=kind, target=target)


async def _update(service: Service, pipeline_id: str, **fields: Any) -> pb.Pipeline:
    request = pb.UpdatePipelineRequest(id=pipeline_id, **fields)
    updated: pb.Pipeline = await service.pipelines.UpdatePipeline(
        request, metadata=service.user(subject="eve")
    )
    return updated


async def _names(service: Service, **filters: Any) -> list[str]:
    answer = await service.pipelines.ListPipelines(
        pb.ListPipelinesRequest(**filters), metadata=service.user("viewer")
    )
    return [pipeline.name for pipeline in answer.data]


async def test_who_a_request_says_creates_a_pipeline_is_kept_beside_who_does(service: Service) -> None:
    created = await service.create("labelled", EXAMPLE, created_by="u-1001")
    assert (created.created_by, created.created_by_label) == ("ada", "u-1001")
    request = pb.DuplicatePipelineRequest(id=created.id)
    copy = await service.pipelines.DuplicatePipeline(request, metadata=service.user())
    assert not copy.HasField("created_by_label")
    error = await failure(service.create("another", EXAMPLE, created_by="https://ada:lovelace@x/"))
    assert [(each.code, each.path) for each in error.problems] == [("LITERAL_SECRET", "createdBy")]


async def test_the_references_example_is_created_in_draft_with_its_defaults(service: Service) -> None:
    created = await service.create(
        "billing-daily-load",
        EXAMPLE,
        schedule_cron="0 2 * * *",
        tags=["billing", "daily"],
        source_connection_id="a1b2c3d4-0000-0000-0000-000000000001",
        target_connection_id="a1b2c3d4-0000-0000-0000-000000000002",
    )
    assert (created.status, created.version, created.created_by) == (pb.PIPELINE_STATUS_DRAFT, 1, "ada")
    assert (created.max_retries, created.retry_delay_seconds, created.timeout_seconds) == (3, 60, 3600)
    assert created.is_active
    assert created.yaml_definition == EXAMPLE
    codes = {(warning.code, warning.path) for warning in created.warnings}
    assert ("UNKNOWN_CONNECTION", "sourceConnectionId") in codes
    assert any(code == "UNKNOWN_CONNECTION" and "source" in path for code, path in codes)


async def test_errors_of_the_definition_are_told_with_their_places_and_nothing_is_stored(
    service: Service,
) -> None:
    text = "sources:\n  - {id: a, values: [{x: 1}]}\nsinks:\n  - {input: b, discard: true}\nsorces: []\n"
    request = pb.CreatePipelineRequest(name="broken", yaml_definition=text)
    error = await failure(service.pipelines.CreatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_INVALID_DEFINITION
    assert any(problem.suggestion == "sources" and problem.line == 5 for problem in error.problems)
    assert await _names(service) == []


async def test_a_text_beyond_the_limit_is_too_large(service: Service) -> None:
    request = pb.CreatePipelineRequest(name="big", yaml_definition="# " + "x" * 64 * 1024)
    error = await failure(service.pipelines.CreatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_TOO_LARGE


async def test_a_literal_secret_in_a_definition_is_refused_and_not_repeated(service: Service) -> None:
    text = (
        "config:\n  source: {name: postgres, config: {host: db, password: hunter2-canary}}\n"
        "  destination: {name: s3, config: {bucket: b}}\n"
    )
    request = pb.CreatePipelineRequest(name="leak", yaml_definition=text)
    error = await failure(service.pipelines.CreatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_INVALID_DEFINITION
    assert "hunter2-canary" not in repr((error.message, error.problems))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": "a\tb"}, "name"),
        ({"name": " a"}, "name"),
        ({"name": "a" * 201}, "name"),
        ({"description": "a\0b"}, "description"),
        ({"version_label": "a\0b"}, "versionLabel"),
        ({"yaml_definition": NOOP + "# \0\n"}, "yamlDefinition"),
        ({"schedule_cron": "61 * * * *"}, "scheduleCron"),
        ({"tags": ["ok", " "]}, "tags[1]"),
        (
            {"notifications": [_notification(pb.PIPELINE_STATUS_FAILED, pb.NOTIFICATION_TYPE_WEBHOOK, "x")]},
            "notifications[0].target",
        ),
        (
            {"notifications": [_notification(pb.PIPELINE_STATUS_DRAFT, pb.NOTIFICATION_TYPE_EMAIL, "a@b")]},
            "notifications[0].on[0]",
        ),
        (
            {
                "notifications": [
                    pb.Notification(
                        on=[pb.PIPELINE_STATUS_FAILED],
                        type=pb.NOTIFICATION_TYPE_EMAIL,
                        target="a@b.de",
                        signing_secret="${secrets.x}",
                    )
                ]
            },
            "notifications[0].signingSecret",
        ),
    ],
)
async def test_wrong_settings_are_refused_with_their_place(
    service: Service, fields: dict[str, Any], path: str
) -> None:
    request = pb.CreatePipelineRequest(**{"name": "a", "yaml_definition": NOOP, **fields})
    error = await failure(service.pipelines.CreatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_INVALID_REQUEST
    assert path in [problem.path for problem in error.problems]


async def test_notifications_reach_those_who_run_it_and_need_their_secrets(service: Service) -> None:
    signed, open_ = (
        pb.Notification(
            on=[pb.PIPELINE_STATUS_FAILED],
            type=pb.NOTIFICATION_TYPE_WEBHOOK,
            target="https://example.com/x",
            signing_secret=secret,
        )
        for secret in ("${secrets.hook}", None)
    )
    request = pb.CreatePipelineRequest(name="told", yaml_definition=NOOP, notifications=[signed, open_])
    made = await service.pipelines.CreatePipeline(request, metadata=service.user())
    assert list(made.notifications) == [signed, open_]
    assert [(warning.code, warning.path) for warning in made.warnings] == [
        ("UNSIGNED_WEBHOOK", "notifications[1]"),
        ("UNKNOWN_CONNECTION", "notifications[0]"),
    ]
    asked = definitions_pb2.BatchGetDefinitionsRequest(pipeline_ids=[made.id])
    answer = await service.definitions.BatchGetDefinitions(asked, metadata=service.service())
    assert list(answer.definitions[0].notifications) == [signed, open_]


@pytest.mark.parametrize("field", ["search", "name"])
async def test_a_filter_that_no_name_can_match_is_refused(service: Service, field: str) -> None:
    assert (await failure(_names(service, **{field: "a\0b"}))).reason == reasons_pb2.REASON_INVALID_REQUEST


async def test_a_text_that_declares_what_cannot_be_stored_is_refused(service: Service) -> None:
    text = NOOP + 'description: "a\\0b"\n'
    request = pb.CreatePipelineRequest(name="nul", yaml_definition=text)
    error = await failure(service.pipelines.CreatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_INVALID_DEFINITION
    assert [problem.path for problem in error.problems] == ["description"]


async def test_a_real_change_is_the_next_version_and_none_leaves_it(service: Service) -> None:
    created = await service.create(tags=["a"])
    changed = await _update(service, created.id, description="new", tags=["b"])
    same = await _update(service, created.id, description="new", yaml_definition=NOOP)
    assert (changed.version, same.version) == (2, 2)
    assert (changed.description, list(changed.tags), changed.created_by) == ("new", ["b"], "ada")
    assert [event.type for event in await service.events()] == [
        "io.headrace.pipeline.created.v1",
        "io.headrace.pipeline.updated.v1",
    ]


async def test_null_clears_a_setting_and_its_default_or_the_texts_value_shows(service: Service) -> None:
    text = NOOP + "description: from the text\nexecution: {max_retries: 7}\n"
    created = await service.create(text=text, description="given", max_retries=1, timeout_seconds=5)
    assert {warning.path for warning in created.warnings if warning.code == "OVERRIDDEN"} == {
        "description",
        "maxRetries",
    }
    cleared = await _update(
        service, created.id, cleared_fields=["description", "maxRetries", "timeoutSeconds"]
    )
    assert (cleared.description, cleared.max_retries, cleared.timeout_seconds) == ("from the text", 7, 3600)


async def test_null_for_a_required_field_is_refused(service: Service) -> None:
    created = await service.create()
    request = pb.UpdatePipelineRequest(id=created.id, cleared_fields=["yamlDefinition", "name"])
    error = await failure(service.pipelines.UpdatePipeline(request, metadata=service.user()))
    assert [problem.path for problem in error.problems] == ["yamlDefinition", "name"]


async def test_of_two_updates_with_the_same_expected_version_one_wins(service: Service) -> None:
    created = await service.create()

    async def update(name: str) -> pb.Pipeline:
        return await _update(service, created.id, description=name, expected_version=1)

    results = await asyncio.gather(*(update(f"d{i}") for i in range(4)), return_exceptions=True)
    won = [result for result in results if isinstance(result, pb.Pipeline)]
    assert [pipeline.version for pipeline in won] == [2]
    stale = await failure(update("late"))
    assert stale.reason == reasons_pb2.REASON_VERSION_MISMATCH


async def test_concurrent_updates_of_different_fields_all_count(service: Service) -> None:
    created = await service.create()
    texts = [NOOP + f"# {i}\n" for i in range(3)]
    await asyncio.gather(
        *(_update(service, created.id, yaml_definition=text) for text in texts),
        _update(service, created.id, description="d"),
        _update(service, created.id, max_retries=9),
    )
    latest = await service.pipelines.GetPipeline(
        pb.GetPipelineRequest(id=created.id), metadata=service.user()
    )
    assert (latest.version, latest.description, latest.max_retries) == (6, "d", 9)
    assert latest.yaml_definition in texts


async def test_of_many_creations_of_one_name_one_wins(service: Service) -> None:
    results = await asyncio.gather(*(service.create("same") for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(result, pb.Pipeline) for result in results) == 1
    assert await _names(service) == ["same"]


async def test_names_are_compared_by_letters_and_case(service: Service) -> None:
    await service.create("Caf\u00e9")
    request = pb.CreatePipelineRequest(name="Cafe\u0301", yaml_definition=NOOP)
    error = await failure(service.pipelines.CreatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_NAME_TAKEN
    await service.create("caf\u00e9")


async def test_renaming_to_a_name_that_is_taken_is_refused(service: Service) -> None:
    await service.create("first")
    second = await service.create("second")
    request = pb.UpdatePipelineRequest(id=second.id, name="first")
    error = await failure(service.pipelines.UpdatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_NAME_TAKEN


async def test_versions_keep_what_they_held(service: Service) -> None:
    created = await service.create(description="one")
    await _update(service, created.id, description="two", name="renamed", yaml_definition=NOOP + "# 2\n")
    first, second = [
        await service.pipelines.GetPipelineVersion(
            pb.GetPipelineVersionRequest(id=created.id, version=number), metadata=service.user("viewer")
        )
        for number in (1, 2)
    ]
    assert (first.name, first.description, first.yaml_definition) == ("flights", "one", NOOP)
    assert (second.name, second.created_by) == ("renamed", "eve")
    page = await service.pipelines.ListPipelineVersions(
        pb.ListPipelineVersionsRequest(id=created.id, limit=1, include_total=True),
        metadata=service.user("viewer"),
    )
    assert ([version.version for version in page.data], page.meta.total) == ([2], 2)
    assert not page.data[0].HasField("yaml_definition")
    rest = await service.pipelines.ListPipelineVersions(
        pb.ListPipelineVersionsRequest(id=created.id, cursor=page.meta.next_cursor),
        metadata=service.user("viewer"),
    )
    assert [version.version for version in rest.data] == [1]


async def test_the_database_refuses_to_change_or_remove_a_version(service: Service) -> None:
    created = await service.create()
    for statement in (
        "UPDATE pipeline_version SET text = '' WHERE pipeline_id = $1",
        "DELETE FROM pipeline_version WHERE pipeline_id = $1",
    ):
        with pytest.raises(Exception, match="is immutable"):
            await service.rows(statement, created.id)


async def test_a_duplicate_is_a_draft_without_schedule_under_a_free_name(service: Service) -> None:
    original = await service.create(schedule_cron="0 2 * * *", tags=["a"], description="d")
    await _update(service, original.id, description="e")

    async def duplicate(**fields: Any) -> pb.Pipeline:
        request = pb.DuplicatePipelineRequest(id=original.id, **fields)
        copy: pb.Pipeline = await service.pipelines.DuplicatePipeline(request, metadata=service.user())
        return copy

    copies = [await duplicate(), await duplicate(), await duplicate(name="mine")]
    assert [copy.name for copy in copies] == ["flights (copy)", "flights (copy 2)", "mine"]
    assert {(copy.version, copy.description, copy.schedule_cron) for copy in copies} == {(1, "e", "")}
    taken = await failure(duplicate(name="mine"))
    assert taken.reason == reasons_pb2.REASON_NAME_TAKEN


async def test_lists_filter_and_page_without_losing_or_repeating(service: Service) -> None:
    for number in range(5):
        await service.create(f"p{number}", tags=["even"] if number % 2 == 0 else ["odd"])
    await service.create("100% Sure_")
    assert await _names(service, search="P") == ["p4", "p3", "p2", "p1", "p0"]
    assert await _names(service, search="0% s") == ["100% Sure_"]
    assert await _names(service, search="_") == ["100% Sure_"]
    assert await _names(service, tags=["odd"]) == ["p3", "p1"]
    assert await _names(service, name="p2") == ["p2"]
    assert await _names(service, status=pb.PIPELINE_STATUS_DRAFT, tags=["odd"]) == ["p3", "p1"]
    assert await _names(service, status=pb.PIPELINE_STATUS_FAILED) == []
    assert await _names(service, offset=4, limit=1) == ["p1"]
    seen, cursor = [], ""
    while True:
        request = pb.ListPipelinesRequest(limit=2, cursor=cursor, include_total=True)
        page = await service.pipelines.ListPipelines(request, metadata=service.user("viewer"))
        seen += [pipeline.name for pipeline in page.data]
        assert page.meta.total == 6
        if not page.meta.HasField("next_cursor"):
            break
        cursor = page.meta.next_cursor
    assert seen == ["100% Sure_", "p4", "p3", "p2", "p1", "p0"]


async def test_lists_over_some_workspaces_merge_them_by_age(service: Service) -> None:
    admin = service.user("admin")
    ids = [
        (
            await service.workspaces.CreateWorkspace(
                workspaces_pb2.CreateWorkspaceRequest(slug=slug), metadata=admin
            )
        ).id
        for slug in ("a", "b", "c")
    ]
    for number in range(6):
        await service.create(f"p{number}", workspace_id=ids[number % 3])
    caller = service.user("viewer", workspaces=ids[:2])
    request = pb.ListPipelinesRequest(limit=3, include_total=True)
    page = await service.pipelines.ListPipelines(request, metadata=caller)
    request.cursor = page.meta.next_cursor
    rest = await service.pipelines.ListPipelines(request, metadata=caller)
    assert [pipeline.name for pipeline in (*page.data, *rest.data)] == ["p4", "p3", "p1", "p0"]
    assert page.meta.total == 4


async def test_cursors_belong_to_their_list(service: Service) -> None:
    for number in range(2):
        await service.create(f"p{number}")
    page = await service.pipelines.ListPipelines(pb.ListPipelinesRequest(limit=1), metadata=service.user())
    request = workspaces_pb2.ListWorkspacesRequest(cursor=page.meta.next_cursor)
    error = await failure(service.workspaces.ListWorkspaces(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_INVALID_CURSOR


async def test_an_idempotency_key_creates_once_and_answers_alike(service: Service) -> None:
    request = pb.CreatePipelineRequest(name="once", yaml_definition=NOOP)

    async def create(name: str = "once") -> pb.Pipeline:
        request.name = name
        answer: pb.Pipeline = await service.pipelines.CreatePipeline(
            request, metadata=service.user(key="k-1")
        )
        return answer

    first, again = await create(), await create()
    assert first == again
    assert (await failure(create("other"))).reason == reasons_pb2.REASON_IDEMPOTENCY_KEY_REUSED
    assert await _names(service) == ["once"]


async def test_validate_tells_errors_and_warnings_and_stores_nothing(service: Service) -> None:
    async def validate(**fields: Any) -> pb.ValidatePipelineResponse:
        answer: pb.ValidatePipelineResponse = await service.pipelines.ValidatePipeline(
            pb.ValidatePipelineRequest(**fields), metadata=service.user("viewer")
        )
        return answer

    good = await validate(yaml_definition=NOOP)
    assert (good.valid, good.engine, list(good.tasks)) == (True, "JDBC", ["noop"])
    lineage = [
        (each.task, each.column, [(o.task, o.column) for o in each.origins])
        for each in (await validate(yaml_definition=JOINED)).lineage
    ]
    assert ("sums", "twice", [("n", "x")]) in lineage
    again = await validate(yaml_definition=good.canonical_definition)
    assert again.canonical_definition == good.canonical_definition
    dangling = NOOP.replace("discard: true", "connection: nowhere, table: t")
    assert "UNKNOWN_CONNECTION" in {w.code for w in (await validate(yaml_definition=dangling)).warnings}
    bad = await validate(yaml_definition="sources: [", schedule_cron="* * *")
    assert not bad.valid
    assert {problem.path for problem in bad.errors} >= {"scheduleCron"}
    assert any(problem.line for problem in bad.errors)
    assert await _names(service) == []


async def test_unknown_pipelines_and_versions_are_not_found(service: Service) -> None:
    created = await service.create()
    for call in (
        service.pipelines.GetPipeline(pb.GetPipelineRequest(id=str(uuid7())), metadata=service.user()),
        service.pipelines.GetPipelineVersion(
            pb.GetPipelineVersionRequest(id=created.id, version=2), metadata=service.user()
        ),
    ):
        assert (await failure(call)).reason == reasons_pb2.REASON_NOT_FOUND
