"""Workspaces: the default one, who may use which, and changes."""

import asyncio
from typing import Any

from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import connections_pb2, definitions_pb2, pipelines_pb2
from headrace.metadata.v1 import workspaces_pb2 as pb
from headrace_chassis.ids import uuid7

from .support import Service, failure


async def _create(service: Service, slug: str, **fields: object) -> pb.Workspace:
    request = pb.CreateWorkspaceRequest(slug=slug, **fields)  # type: ignore[arg-type]
    created: pb.Workspace = await service.workspaces.CreateWorkspace(request, metadata=service.user("admin"))
    return created


async def _list(service: Service, **claims: Any) -> list[str]:
    answer = await service.workspaces.ListWorkspaces(
        pb.ListWorkspacesRequest(), metadata=service.user("viewer", **claims)
    )
    return [workspace.slug for workspace in answer.data]


async def test_a_tenant_gets_one_default_workspace_however_many_ask_first(service: Service) -> None:
    lists = await asyncio.gather(*(_list(service) for _ in range(8)))
    assert lists == [["default"]] * 8


async def test_a_request_without_a_workspace_means_default(service: Service) -> None:
    pipeline = await service.create()
    answer = await service.workspaces.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=service.user())
    assert pipeline.workspace_id == answer.data[0].id


async def test_without_the_right_to_default_it_means_the_first_of_the_token(
    service: Service,
) -> None:
    sales, zoo = await _create(service, "sales"), await _create(service, "zoo")
    caller = service.user(workspaces=[uuid7(), zoo.id, sales.id])
    request = pipelines_pb2.CreatePipelineRequest(name="a", yaml_definition="sources: []")
    created = await service.pipelines.CreatePipeline(request, metadata=caller)
    assert created.workspace_id == zoo.id


async def test_a_token_without_any_workspace_that_exists_is_refused(service: Service) -> None:
    request = pipelines_pb2.CreatePipelineRequest(name="a", yaml_definition="sources: []")
    caller = service.user(workspaces=[uuid7()])
    error = await failure(service.pipelines.CreatePipeline(request, metadata=caller))
    assert error.reason == reasons_pb2.REASON_WORKSPACE_FORBIDDEN


async def test_naming_a_forbidden_workspace_is_403_an_unknown_or_foreign_one_404(
    service: Service,
) -> None:
    mine, other = await _create(service, "mine"), await _create(service, "other")
    foreign_tenant = uuid7()

    async def reason(workspace: str, **claims: Any) -> int:
        request = pipelines_pb2.ListPipelinesRequest(workspace_id=workspace)
        return (
            await failure(service.pipelines.ListPipelines(request, metadata=service.user(**claims)))
        ).reason

    assert await reason(other.id, workspaces=[mine.id]) == reasons_pb2.REASON_WORKSPACE_FORBIDDEN
    assert await reason(str(uuid7()), workspaces=[mine.id]) == reasons_pb2.REASON_NOT_FOUND
    assert await reason(mine.id, tenant=foreign_tenant) == reasons_pb2.REASON_NOT_FOUND


async def test_objects_of_other_workspaces_and_tenants_do_not_exist(service: Service) -> None:
    mine, other = await _create(service, "mine"), await _create(service, "other")
    pipeline = await service.create(workspace_id=other.id)
    for claims in ({"workspaces": [mine.id]}, {"tenant": uuid7()}):
        caller = service.user("admin", **claims)
        for call in (
            service.pipelines.GetPipeline(pipelines_pb2.GetPipelineRequest(id=pipeline.id), metadata=caller),
            service.workspaces.GetWorkspace(pb.GetWorkspaceRequest(id=other.id), metadata=caller),
            service.pipelines.DeletePipeline(
                pipelines_pb2.DeletePipelineRequest(id=pipeline.id), metadata=caller
            ),
        ):
            assert (await failure(call)).reason == reasons_pb2.REASON_NOT_FOUND
        listed = await service.pipelines.ListPipelines(
            pipelines_pb2.ListPipelinesRequest(include_total=True), metadata=caller
        )
        assert (len(listed.data), listed.meta.total) == (0, 0)


async def test_lists_show_the_workspaces_that_the_token_allows(service: Service) -> None:
    sales, zoo = await _create(service, "sales"), await _create(service, "zoo")
    assert await _list(service) == ["default", "sales", "zoo"]
    assert await _list(service, workspaces=[zoo.id, sales.id]) == ["sales", "zoo"]


async def test_lists_go_on_where_they_ended(service: Service) -> None:
    for slug in ("a", "b", "c"):
        await _create(service, slug)
    slugs, cursor = [], ""
    while True:
        request = pb.ListWorkspacesRequest(limit=2, cursor=cursor, include_total=True)
        page = await service.workspaces.ListWorkspaces(request, metadata=service.user())
        slugs += [workspace.slug for workspace in page.data]
        cursor = page.meta.next_cursor
        assert page.meta.total == 4
        if not cursor:
            break
    assert slugs == ["a", "b", "c", "default"]


async def test_a_slug_is_unique_in_the_tenant(service: Service) -> None:
    await _create(service, "sales")
    again = pb.CreateWorkspaceRequest(slug="sales")
    error = await failure(service.workspaces.CreateWorkspace(again, metadata=service.user("admin")))
    assert error.reason == reasons_pb2.REASON_NAME_TAKEN
    elsewhere = await service.workspaces.CreateWorkspace(
        again, metadata=service.user("admin", tenant=uuid7())
    )
    assert elsewhere.slug == "sales"


async def test_update_changes_what_is_given_and_clears_what_is_null(service: Service) -> None:
    created = await _create(
        service, "sales", name="Sales", country="PL", timezone="Europe/Warsaw", holidays=["2026-12-24"]
    )
    request = pb.UpdateWorkspaceRequest(
        id=created.id, name="Sales EU", cleared_fields=["country", "holidays", "timezone"]
    )
    updated = await service.workspaces.UpdateWorkspace(request, metadata=service.user("admin"))
    assert (updated.name, updated.HasField("country"), list(updated.holidays)) == ("Sales EU", False, [])
    assert (updated.timezone, updated.slug) == ("UTC", "sales")


async def test_variables_that_runs_may_be_given_are_kept_once_each_and_cleared_by_null(
    service: Service,
) -> None:
    created = await _create(service, "sales", allowed_variables=["STAGE", "REGION", "STAGE"])
    assert list(created.allowed_variables) == ["REGION", "STAGE"]
    change = pb.UpdateWorkspaceRequest(id=created.id, allowed_variables=["STAGE"])
    updated = await service.workspaces.UpdateWorkspace(change, metadata=service.user("admin"))
    assert list(updated.allowed_variables) == ["STAGE"]
    clear = pb.UpdateWorkspaceRequest(id=created.id, cleared_fields=["allowedVariables"])
    cleared = await service.workspaces.UpdateWorkspace(clear, metadata=service.user("admin"))
    assert list(cleared.allowed_variables) == []


async def test_null_for_what_cannot_be_cleared_is_refused(service: Service) -> None:
    created = await _create(service, "sales")
    request = pb.UpdateWorkspaceRequest(id=created.id, cleared_fields=["slug"])
    error = await failure(service.workspaces.UpdateWorkspace(request, metadata=service.user("admin")))
    assert [problem.path for problem in error.problems] == ["slug"]


async def test_workspaces_belong_to_connections_too(service: Service) -> None:
    mine, other = await _create(service, "mine"), await _create(service, "other")
    request = connections_pb2.CreateConnectionRequest(
        name="files", type=connections_pb2.CONNECTION_TYPE_FILE, path="/data", workspace_id=other.id
    )
    error = await failure(
        service.connections.CreateConnection(request, metadata=service.user(workspaces=[mine.id]))
    )
    assert error.reason == reasons_pb2.REASON_WORKSPACE_FORBIDDEN


async def test_services_ask_for_the_calendars_of_workspaces(service: Service) -> None:
    made = await service.workspaces.CreateWorkspace(
        pb.CreateWorkspaceRequest(
            slug="sales", country="PL", timezone="Europe/Warsaw", holidays=["2026-12-24"]
        ),
        metadata=service.user("admin"),
    )
    request = definitions_pb2.BatchGetWorkspacesRequest(ids=[made.id, str(uuid7())])
    answer = await service.definitions.BatchGetWorkspaces(request, metadata=service.service("scheduler"))
    assert list(answer.workspaces) == [made]
    changed = pb.UpdateWorkspaceRequest(id=made.id, timezone="UTC")
    await service.workspaces.UpdateWorkspace(changed, metadata=service.user("admin"))
    await service.workspaces.UpdateWorkspace(changed, metadata=service.user("admin"))
    assert [event.type for event in await service.events()] == [
        "io.headrace.workspace.created.v1",
        "io.headrace.workspace.updated.v1",
    ]
