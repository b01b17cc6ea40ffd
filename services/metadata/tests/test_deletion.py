"""Deleting pipelines: live runs, crashes between the steps, and what is left."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import definitions_pb2, events_pb2
from headrace.metadata.v1 import pipelines_pb2 as pb
from headrace_chassis.ids import uuid7
from headrace_metadata.loops.pipeline_deleter import PipelineDeleter
from headrace_metadata.store import deletions

from .support import NOOP, Service, away, failure


async def _delete(service: Service, pipeline_id: str, **fields: Any) -> None:
    request = pb.DeletePipelineRequest(id=pipeline_id, **fields)
    await service.pipelines.DeletePipeline(request, metadata=service.user())


async def _get(service: Service, pipeline_id: str) -> pb.Pipeline:
    found: pb.Pipeline = await service.pipelines.GetPipeline(
        pb.GetPipelineRequest(id=pipeline_id), metadata=service.user("viewer")
    )
    return found


async def _acknowledge(service: Service, pipeline_id: str, owner: str = "execution") -> None:
    request = definitions_pb2.AcknowledgePurgeRequest(pipeline_id=pipeline_id, owner=owner)
    await service.definitions.AcknowledgePurge(request, metadata=service.service())


def _deleter(service: Service) -> PipelineDeleter:
    return PipelineDeleter(service.parts.deletion, quiet=timedelta(seconds=-1))


async def _event_names(service: Service) -> list[str]:
    return [event.type.split(".")[3] for event in await service.events()]


async def test_a_deleted_pipeline_is_gone_for_every_reader_and_its_name_is_free(service: Service) -> None:
    created = await service.create()
    await _delete(service, created.id)
    assert (await failure(_get(service, created.id))).reason == reasons_pb2.REASON_NOT_FOUND
    assert (await failure(_delete(service, created.id))).reason == reasons_pb2.REASON_NOT_FOUND
    listed = await service.pipelines.ListPipelines(
        pb.ListPipelinesRequest(include_total=True), metadata=service.user()
    )
    assert (len(listed.data), listed.meta.total) == (0, 0)
    batch = definitions_pb2.BatchGetDefinitionsRequest(pipeline_ids=[created.id])
    answer = await service.definitions.BatchGetDefinitions(batch, metadata=service.service())
    assert len(answer.definitions) == 0
    assert (await service.create()).id != created.id
    assert service.execution.closed == [(created.id, False)]
    assert await _event_names(service) == ["created", "deleting", "deleted", "created"]


async def test_live_runs_are_named_and_the_pipeline_is_as_it_was(service: Service) -> None:
    created = await service.create()
    run = str(uuid7())
    service.execution.live[created.id] = [run]
    error = await failure(_delete(service, created.id))
    assert error.reason == reasons_pb2.REASON_PIPELINE_HAS_LIVE_RUNS
    assert run in error.message
    update = pb.UpdatePipelineRequest(id=created.id, description="still here")
    updated = await service.pipelines.UpdatePipeline(update, metadata=service.user())
    assert updated.version == 2


async def test_force_is_handed_on(service: Service) -> None:
    created = await service.create()
    service.execution.live[created.id] = [str(uuid7())]
    await _delete(service, created.id, force=True)
    assert service.execution.closed == [(created.id, True)]


async def test_a_stale_version_deletes_nothing(service: Service) -> None:
    created = await service.create()
    error = await failure(_delete(service, created.id, expected_version=2))
    assert error.reason == reasons_pb2.REASON_VERSION_MISMATCH
    assert service.execution.callers == []


async def test_while_it_is_being_closed_it_takes_no_changes(service: Service) -> None:
    created = await service.create()
    service.execution.go_on.clear()
    deleting = asyncio.ensure_future(_delete(service, created.id))
    await service.execution.entered.wait()
    update = pb.UpdatePipelineRequest(id=created.id, description="late")
    error = await failure(service.pipelines.UpdatePipeline(update, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_PIPELINE_DELETING
    service.execution.go_on.set()
    await deleting


async def test_execution_being_away_leaves_a_deletion_that_is_carried_on(service: Service) -> None:
    created = await service.create()
    service.execution.failure = away()
    error = await failure(_delete(service, created.id))
    assert error.reason == reasons_pb2.REASON_UNAVAILABLE
    assert (await _get(service, created.id)).id == created.id
    service.execution.failure = None
    await _deleter(service).run_once()
    assert (await failure(_get(service, created.id))).reason == reasons_pb2.REASON_NOT_FOUND
    assert (await _event_names(service))[-2:] == ["deleting", "deleted"]


async def test_a_crash_while_closing_is_healed_by_the_loop(service: Service) -> None:
    created = await service.create()
    service.execution.go_on.clear()
    call = service.pipelines.DeletePipeline(pb.DeletePipelineRequest(id=created.id), metadata=service.user())
    await service.execution.entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    service.execution.go_on.set()
    await _deleter(service).run_once()
    assert (await failure(_get(service, created.id))).reason == reasons_pb2.REASON_NOT_FOUND


async def test_a_crash_right_after_closing_is_healed_by_the_loop(service: Service) -> None:
    created = await service.create()
    async with service.base.db.transaction() as conn:
        await deletions.begin(conn, service.tenant, UUID(created.id), force=False, by="ada")
    await service.parts.execution.close_pipeline(
        service.tenant, "ada", UUID(created.id), attempt=1, force=False
    )
    await asyncio.gather(_deleter(service).run_once(), _deleter(service).run_once())
    assert (await failure(_get(service, created.id))).reason == reasons_pb2.REASON_NOT_FOUND
    assert (await _event_names(service)).count("deleted") == 1


async def test_an_abandoned_deletion_of_a_pipeline_with_live_runs_is_given_up(service: Service) -> None:
    created = await service.create()
    service.execution.failure = away()
    await failure(_delete(service, created.id))
    service.execution.failure = None
    service.execution.live[created.id] = [str(uuid7())]
    await _deleter(service).run_once()
    update = pb.UpdatePipelineRequest(id=created.id, description="alive")
    assert (await service.pipelines.UpdatePipeline(update, metadata=service.user())).version == 2


async def test_force_stays_once_it_was_given(service: Service) -> None:
    created = await service.create()
    service.execution.failure = away()
    await failure(_delete(service, created.id, force=True))
    service.execution.failure = None
    service.execution.live[created.id] = [str(uuid7())]
    await _delete(service, created.id)
    assert service.execution.closed == [(created.id, True)]


async def test_a_superseded_attempt_cannot_undo_a_later_one(service: Service) -> None:
    created = await service.create()
    service.execution.live[created.id] = [str(uuid7())]
    service.execution.go_on.clear()
    first = asyncio.ensure_future(_delete(service, created.id))
    await service.execution.entered.wait()
    service.execution.entered.clear()
    second = asyncio.ensure_future(_delete(service, created.id, force=True))
    await service.execution.entered.wait()
    service.execution.go_on.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(results[0], grpc.aio.AioRpcError)
    assert results[1] is None
    assert (await failure(_get(service, created.id))).reason == reasons_pb2.REASON_NOT_FOUND
    assert (await _event_names(service)).count("deleted") == 1


async def test_versions_and_tombstone_go_when_all_owners_have_purged(service: Service) -> None:
    created = await service.create()
    refused = await failure(_acknowledge(service, created.id))
    assert refused.reason == reasons_pb2.REASON_INVALID_REQUEST
    await _delete(service, created.id)

    async def left() -> int:
        heads = await service.rows("SELECT FROM pipeline WHERE id = $1", created.id)
        versions = await service.rows("SELECT FROM pipeline_version WHERE pipeline_id = $1", created.id)
        return len(heads) + len(versions)

    assert await left() == 2
    await _acknowledge(service, created.id, "scheduler")
    assert await left() == 2
    await _acknowledge(service, created.id)
    assert await left() == 0
    await _acknowledge(service, created.id)
    stranger = await failure(_acknowledge(service, created.id, "nobody"))
    assert [problem.path for problem in stranger.problems] == ["owner"]


async def test_the_deleted_event_says_what_is_gone(service: Service) -> None:
    created = await service.create(text=NOOP, schedule_cron="0 2 * * *")
    await _delete(service, created.id)
    last = (await service.events())[-1]
    payload = events_pb2.PipelineEvent.FromString(last.data)
    assert (last.type, last.subject) == ("io.headrace.pipeline.deleted.v1", created.id)
    assert (payload.pipeline_id, payload.version, payload.schedule_cron) == (created.id, 1, "0 2 * * *")
