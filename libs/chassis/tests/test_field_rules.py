"""The rules of fields, against messages of the real contracts."""

import uuid
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import runs_pb2
from headrace.metadata.v1 import connections_pb2, definitions_pb2, pipelines_pb2, workspaces_pb2
from headrace_chassis.errors import Problem
from headrace_chassis.field_rules import compile_check
from hypothesis import given
from hypothesis import strategies as st

ID = str(uuid.UUID(int=1))


def problems(message: Any, **options: Any) -> list[Problem]:
    check = compile_check(message.DESCRIPTOR, **options)
    assert check is not None
    return check(message)


def told(message: Any, **options: Any) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in problems(message, **options)]


def test_a_good_message_has_no_problems() -> None:
    good = workspaces_pb2.CreateWorkspaceRequest(
        slug="data-eng", name="Data", country="PL", holidays=["2026-12-24"], timezone="Europe/Warsaw"
    )
    assert problems(good) == []


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (workspaces_pb2.CreateWorkspaceRequest(), [("REQUIRED", "slug")]),
        (workspaces_pb2.CreateWorkspaceRequest(slug="-a"), [("INVALID_FORMAT", "slug")]),
        (workspaces_pb2.CreateWorkspaceRequest(slug="a\n"), [("INVALID_FORMAT", "slug")]),
        (workspaces_pb2.CreateWorkspaceRequest(slug="a" * 64), [("TOO_LONG", "slug")]),
        (
            workspaces_pb2.CreateWorkspaceRequest(slug="a", timezone="../etc/passwd"),
            [("INVALID_FORMAT", "timezone")],
        ),
        (
            workspaces_pb2.CreateWorkspaceRequest(slug="a", timezone="utc"),
            [("INVALID_FORMAT", "timezone")],
        ),
        (
            workspaces_pb2.CreateWorkspaceRequest(slug="a", timezone="Mars/Olympus"),
            [("INVALID_FORMAT", "timezone")],
        ),
        (
            workspaces_pb2.CreateWorkspaceRequest(
                slug="a", holidays=["2026-01-01", "24.12.2026", "2026-02-30"]
            ),
            [("INVALID_FORMAT", "holidays[1]"), ("INVALID_FORMAT", "holidays[2]")],
        ),
        (
            workspaces_pb2.CreateWorkspaceRequest(slug="a", holidays=["2026-01-01"] * 1001),
            [("TOO_MANY_ITEMS", "holidays")],
        ),
        (workspaces_pb2.GetWorkspaceRequest(id="1"), [("INVALID_FORMAT", "id")]),
        (workspaces_pb2.UpdateWorkspaceRequest(id=ID, name=""), [("TOO_SHORT", "name")]),
        (definitions_pb2.BatchGetDefinitionsRequest(), [("REQUIRED", "pipelineIds")]),
        (
            definitions_pb2.BatchGetDefinitionsRequest(pipeline_ids=[ID, "x"]),
            [("INVALID_FORMAT", "pipelineIds[1]")],
        ),
        (
            event_log_pb2.ListEventsRequest(after=-1, limit=1001),
            [("TOO_SMALL", "after"), ("TOO_LARGE", "limit")],
        ),
    ],
)
def test_each_rule_tells_its_place(message: Any, expected: list[tuple[str, str]]) -> None:
    assert told(message) == expected


def test_an_absent_optional_field_is_not_looked_at() -> None:
    assert problems(workspaces_pb2.UpdateWorkspaceRequest(id=ID)) == []


@pytest.mark.parametrize(
    ("text", "good"),
    [(b'{"a": 1}', True), (b"{", False), (b"\xff", False), (b"[" * 60_000, False)],
    ids=["object", "cut off", "no UTF-8", "too deep"],
)
def test_json_fields_hold_json(text: bytes, good: bool) -> None:
    request = runs_pb2.RunPipelineRequest(id=ID, parameters=text)
    assert told(request) == ([] if good else [("INVALID_FORMAT", "parameters")])


def test_an_unknown_enum_value_is_refused_from_users_only() -> None:
    request = runs_pb2.RunPipelineRequest(id=ID)
    request.engine = 999  # type: ignore[assignment]
    assert told(request, known_enums_only=True) == [("INVALID_VALUE", "engine")]
    assert told(request) == []


def test_nested_messages_tell_the_whole_path() -> None:
    request = pipelines_pb2.CreatePipelineRequest(
        notifications=[pipelines_pb2.Notification() for _ in range(2)]
    )
    inner = problems(pipelines_pb2.Notification())
    assert inner
    assert {f"notifications[1].{problem.path}" for problem in inner} <= {place for _, place in told(request)}


def test_a_message_without_rules_costs_nothing() -> None:
    assert compile_check(Timestamp.DESCRIPTOR) is None
    assert compile_check(workspaces_pb2.Workspace.DESCRIPTOR, any_text=True) is None


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (connections_pb2.CreateConnectionRequest(description="a\0"), "description"),
        (connections_pb2.CreateConnectionRequest(options={"a\0": "b"}), "options.a\0"),
        (connections_pb2.CreateConnectionRequest(options={"a": "\0"}), "options.a"),
        (pipelines_pb2.CreatePipelineRequest(tags=["a", "\0"]), "tags[1]"),
        (
            pipelines_pb2.CreatePipelineRequest(notifications=[pipelines_pb2.Notification(target="\0")]),
            "notifications[0].target",
        ),
    ],
)
def test_no_text_may_hold_what_no_database_can(message: Any, path: str) -> None:
    assert ("INVALID_CHARACTER", path) in told(message)
    assert ("INVALID_CHARACTER", path) not in told(message, any_text=True)


@given(st.text(max_size=80))
def test_the_uuid_rule_agrees_with_the_library(text: str) -> None:
    accepted = told(workspaces_pb2.GetWorkspaceRequest(id=text)) == []
    if accepted:
        assert str(uuid.UUID(text)) == text.lower()


@given(st.uuids())
def test_every_uuid_is_taken(value: uuid.UUID) -> None:
    assert told(workspaces_pb2.GetWorkspaceRequest(id=str(value))) == []
    assert told(workspaces_pb2.GetWorkspaceRequest(id=str(value).upper())) == []
