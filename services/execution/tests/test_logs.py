"""Logs: taken from workers, stored, and read while the run goes and afterwards."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import logs_pb2, workers_pb2
from headrace_artifacts.local import LocalStore
from headrace_artifacts.store import ArtifactError
from headrace_chassis import faults
from headrace_chassis.channels import call_metadata
from headrace_chassis.database import Database, driver
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.ids import uuid7
from headrace_chassis.testing.files import files_below
from headrace_chassis.testing.waiting import eventually

from .support import LOADING, NOOP, PATIENT, Cluster, Replica, ScriptedWorker, failure, receipt


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in files_below(folder) if path.suffix == ".ndjson")


async def logs(replica: Replica, run_id: str, **request: Any) -> logs_pb2.GetRunLogsResponse:
    return await replica.logs.GetRunLogs(
        logs_pb2.GetRunLogsRequest(run_id=run_id, **request), metadata=replica.editor, timeout=PATIENT
    )


def messages(answer: logs_pb2.GetRunLogsResponse) -> list[str]:
    return [line.message for line in answer.lines]


async def running(mesh: Cluster, replica: Replica) -> tuple[str, ScriptedWorker, workers_pb2.Assignment]:
    """A run that loads, its worker, and the assignment."""
    worker = await mesh.worker(replica)
    run_id = (await replica.run(mesh.metadata.add(LOADING))).run_id
    return run_id, worker, await worker.next_assignment()


async def end(worker: ScriptedWorker, work: workers_pb2.Assignment) -> None:
    await worker.finish(work, receipts=[receipt(work.ref.fence)])
    await worker.next_ack()


async def test_what_a_worker_logs_is_read_while_it_works(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica)

    await worker.log(work, 0, "reading", "a lot", task="rows")
    ack = await worker.next_log_ack()

    assert (ack.ref, ack.sequence) == (work.ref, 0)
    answer = await logs(replica, run_id)
    assert messages(answer)[-2:] == ["reading", "a lot"]
    assert (answer.lines[-1].task, answer.lines[-1].attempt, dict(answer.lines[-1].fields)) == (
        "rows",
        1,
        {"number": "1"},
    )
    assert messages(answer)[0] == "accepted: version 1 on engine JDBC, started by ada"
    assert not answer.has_earlier


async def test_a_plain_run_has_a_log_too(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)
    run_id = (await replica.run(mesh.metadata.add(NOOP))).run_id
    work = await worker.next_assignment()
    await worker.finish(work)
    await replica.ended(run_id)

    told = messages(await logs(replica, run_id))

    assert told[0].startswith("accepted")
    assert told[-1] == "the run is COMPLETED"
    assert "completed" in told


async def test_a_chunk_that_comes_twice_is_stored_once(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica)
    for sequence, text in ((0, "one"), (0, "one"), (1, "two"), (0, "one")):
        await worker.log(work, sequence, text)
        await worker.next_log_ack()

    assert messages(await logs(replica, run_id))[-2:] == ["one", "two"]
    assert len(files(mesh.artifacts)) == 2


async def test_the_lines_of_all_attempts_stay(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)
    run_id = (await replica.run(mesh.metadata.add(LOADING, max_retries=1, retry_delay_seconds=1))).run_id
    first = await worker.next_assignment()
    await worker.log(first, 0, "first try")
    await worker.next_log_ack()
    await worker.finish(first, "FAILED", error=failure("GONE", "TRANSIENT"))
    await replica.reaches(run_id, "RUNNING")
    replica.travel(3)
    second = await worker.next_assignment()
    await worker.log(first, 1, "last words of the first")
    await worker.log(second, 0, "second try")
    await asyncio.gather(worker.next_log_ack(), worker.next_log_ack())

    answer = await logs(replica, run_id)

    told = {line.message: line.attempt for line in answer.lines}
    assert (told["first try"], told["last words of the first"], told["second try"]) == (1, 1, 2)
    assert [
        text for text in told if text.startswith("attempt 1 of stage s1 failed (GONE); it is tried again")
    ]


async def test_lines_are_chosen_by_task_and_number(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica)
    for sequence in range(12):
        await worker.log(work, sequence, f"r{sequence}", f"r{sequence}b", task="rows")
        await worker.next_log_ack()
    await worker.log(work, 12, "l", task="load")
    await worker.next_log_ack()

    latest = await logs(replica, run_id, lines=3)
    assert (messages(latest), latest.has_earlier) == (["r11", "r11b", "l"], True)
    one = await logs(replica, run_id, task="rows", lines=2)
    assert (messages(one), one.has_earlier) == (["r11", "r11b"], True)
    whole = await logs(replica, run_id, task="rows")
    assert (len(whole.lines), whole.has_earlier) == (24, False)
    assert messages(await logs(replica, run_id, task="nothing")) == []


async def test_of_a_long_log_the_middle_is_left_out(mesh: Cluster) -> None:
    replica = await mesh.replica(log_limit_kb=64)
    run_id, worker, work = await running(mesh, replica)
    for sequence in range(40):
        await worker.log(work, sequence, f"{sequence:03d}" + "x" * 2000)
        await worker.next_log_ack()

    async def trimmed() -> bool:
        return len(files(mesh.artifacts)) < 20

    await eventually(trimmed, within=PATIENT)
    told = [text[:3] for text in messages(await logs(replica, run_id)) if text[3:4] == "x"]

    assert told[0] == "000"
    assert told[-1] == "039"
    (left_out,) = [text for text in messages(await logs(replica, run_id)) if "left out here" in text]
    assert left_out.startswith(f"{40 - len(told)} lines")
    assert len(files(mesh.artifacts)) == len(told)


async def test_a_crash_between_store_and_index_loses_nothing(
    mesh: Cluster, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, worker, work = await running(mesh, replica)
    died = asyncio.Event()
    point = faults.point

    def crash(name: str) -> None:
        if name == "execution.log.put" and not died.is_set():
            died.set()
            raise RuntimeError("the process dies here")
        point(name)

    monkeypatch.setattr(faults, "point", crash)
    await worker.log(work, 0, "once")
    await asyncio.wait_for(died.wait(), PATIENT)
    assert worker.log_acks.empty()
    assert "once" not in messages(await logs(replica, run_id))

    await worker.log(work, 0, "once")
    await worker.next_log_ack()

    assert messages(await logs(replica, run_id)).count("once") == 1


async def test_a_store_that_refuses_stops_no_run(
    mesh: Cluster, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, worker, work = await running(mesh, replica)
    refused = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(*_: Any) -> None:
        loop.call_soon_threadsafe(refused.set)
        raise ArtifactError("full")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "put", refuse)
        await worker.log(work, 0, "late")
        await asyncio.wait_for(refused.wait(), PATIENT)
        await end(worker, work)
        await replica.ended(run_id)
    assert worker.log_acks.empty()
    await worker.log(work, 0, "late")
    await worker.next_log_ack()
    assert "late" in messages(await logs(replica, run_id))


async def test_a_log_of_nothing_that_was_handed_out_is_refused(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica)
    for ref in (
        workers_pb2.AssignmentRef(assignment_id=str(uuid7()), fence=1),
        workers_pb2.AssignmentRef(assignment_id=work.ref.assignment_id, fence=work.ref.fence + 1),
    ):
        await worker.log(workers_pb2.Assignment(ref=ref, attempt=1), 0, "forged")
        await worker.next_log_ack()

    assert "forged" not in messages(await logs(replica, run_id))
    assert files(mesh.artifacts) == []


async def test_a_follower_sees_each_line_once_until_the_end(mesh: Cluster, replica: Replica) -> None:
    other = await mesh.replica()
    run_id, worker, work = await running(mesh, replica)
    await worker.log(work, 0, "before")
    await worker.next_log_ack()
    seen: list[str] = []
    request = logs_pb2.GetRunLogsRequest(run_id=run_id)

    async def follow() -> None:
        lines = other.logs.FollowRunLogs(request, metadata=other.editor, timeout=PATIENT)
        async for line in lines:
            seen.append(line.message)  # noqa: PERF401 - looked at while it grows

    following = asyncio.create_task(follow())

    async def sees(text: str) -> bool:
        return text in seen

    await eventually(lambda: sees("before"), within=PATIENT)
    await worker.log(work, 1, "meanwhile")
    await eventually(lambda: sees("meanwhile"), within=PATIENT)
    await end(worker, work)
    await worker.log(work, 2, "last words")
    await asyncio.wait_for(following, PATIENT)

    assert [text for text in seen if text in ("before", "meanwhile", "last words")] == [
        "before",
        "meanwhile",
        "last words",
    ]
    assert seen[0].startswith("accepted")
    assert seen.count("the run has started") == 1
    assert seen[-1] == "the run is COMPLETED"


async def test_a_log_is_for_those_who_may_see_the_run(mesh: Cluster, replica: Replica) -> None:
    run_id, _, _ = await running(mesh, replica)
    stranger = call_metadata(replica.authority.user("admin", tenant=uuid7()))
    elsewhere = call_metadata(replica.authority.user("viewer", workspaces=[uuid7()]))
    request = logs_pb2.GetRunLogsRequest(run_id=run_id)
    for metadata in (stranger, elsewhere):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await replica.logs.GetRunLogs(request, metadata=metadata, timeout=PATIENT)
        assert from_rpc_error(refused.value).reason == reasons_pb2.REASON_NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(replica.logs.FollowRunLogs(request, metadata=metadata, timeout=PATIENT)))
        assert from_rpc_error(refused.value).reason == reasons_pb2.REASON_NOT_FOUND


async def test_logs_go_with_their_pipeline(mesh: Cluster, replica: Replica, db: Database) -> None:
    worker = await mesh.worker(replica)
    pipeline = mesh.metadata.add(LOADING)
    run_id = (await replica.run(pipeline)).run_id
    work = await worker.next_assignment()
    await worker.log(work, 0, "gone soon")
    await worker.next_log_ack()
    await end(worker, work)
    await replica.ended(run_id)
    assert files(mesh.artifacts)

    mesh.metadata.delete(pipeline)

    async def acknowledged() -> bool:
        return pipeline in mesh.metadata.acknowledged

    await eventually(acknowledged, within=PATIENT)
    assert files(mesh.artifacts) == []
    async with db.read() as conn:
        assert await driver(conn).fetchval("SELECT count(*) FROM log_chunks") == 0
