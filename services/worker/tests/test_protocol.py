"""The worker against a server: what is handed out is run, and every result arrives."""

import os
import signal

import psutil
import pytest
from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_chassis.testing.waiting import eventually
from headrace_worker.wiring import Worker

from .conftest import Running, process_of
from .scripted_server import ScriptedExecution, Stream, stage
from .stages import ENDLESS, NOOP, payload


def held(stream: Stream) -> set[str]:
    beats = stream.bodies("heartbeat")
    return {ref.assignment_id for ref in beats[-1].held} if beats else set()


async def test_a_worker_introduces_itself(stream: Stream, worker: Worker) -> None:
    assert stream.hello.worker_id == worker.worker_id
    assert (stream.hello.name, stream.hello.slots) == ("worker-1", 2)
    assert list(stream.hello.engines) == [runs_pb2.ENGINE_JDBC]
    assert not stream.hello.held


async def test_a_no_op_stage_completes_with_its_task(stream: Stream) -> None:
    work = stage(payload(NOOP))
    stream.assign(work)

    result = await stream.result_of(work)

    assert result.outcome == workers_pb2.OUTCOME_COMPLETED
    (task,) = result.tasks
    assert (task.task, task.state, task.rows_out) == ("noop", runs_pb2.TASK_STATE_COMPLETED, 1)
    assert task.finished_at.ToNanoseconds() >= task.started_at.ToNanoseconds() > 0


async def test_many_stages_over_few_processes(stream: Stream, worker: Worker) -> None:
    work = [stage(payload(NOOP)) for _ in range(300)]
    stream.assign(*work)

    await stream.until(lambda: len(stream.bodies("result")) == 300)

    refs = {result.ref.assignment_id for result in stream.bodies("result")}
    assert refs == {each.ref.assignment_id for each in work}
    await eventually(lambda: _nothing_held(worker))


async def test_results_go_together_where_the_server_takes_batches(
    run_worker: Running, execution: ScriptedExecution
) -> None:
    execution.takes_batches = True
    async with run_worker() as worker:
        stream = await execution.next_stream()
        work = [stage(payload(NOOP)) for _ in range(100)]
        stream.assign(*work)

        def told() -> list[str]:
            batches = [batch.results for batch in stream.bodies("results")]
            alone = stream.bodies("result")
            return [each.ref.assignment_id for results in (alone, *batches) for each in results]

        await stream.until(lambda: len(told()) == 100)

        assert set(told()) == {each.ref.assignment_id for each in work}
        assert stream.bodies("results")
        await eventually(lambda: _nothing_held(worker))


async def _nothing_held(worker: Worker) -> bool:
    return len(worker.supervisor.holdings) == 0


async def test_what_waits_too_long_for_a_slot_is_given_back(stream: Stream, worker: Worker) -> None:
    long = [stage(payload(ENDLESS)) for _ in range(2)]
    waiting = [stage(payload(NOOP)) for _ in range(3)]
    stream.assign(*long, *waiting)

    (release,) = await stream.until(lambda: stream.bodies("release"))

    assert list(release.refs) == [work.ref for work in waiting]
    assert {holding.ref.assignment_id for holding in worker.supervisor.holdings} == {
        work.ref.assignment_id for work in long
    }
    assert not stream.bodies("result")


async def test_a_message_that_comes_twice_is_run_once(stream: Stream) -> None:
    work, other = stage(payload(ENDLESS)), stage(payload(NOOP))
    stream.assign(work)
    stream.assign(work)
    stream.assign(other)

    await stream.result_of(other)
    stream.cancel(work)
    await stream.result_of(work)

    assert len(stream.bodies("result")) == 2


async def test_a_result_is_repeated_on_the_next_stream_until_it_is_acknowledged(
    execution: ScriptedExecution, stream: Stream, worker: Worker
) -> None:
    execution.acknowledges = False
    work = stage(payload(NOOP))
    stream.assign(work)
    first = await stream.result_of(work)
    stream.end()

    again = await execution.next_stream()
    second = await again.result_of(work)

    assert second == first
    assert [ref.assignment_id for ref in again.hello.held] == [work.ref.assignment_id]
    again.send(result_ack=workers_pb2.ResultAck(refs=[work.ref]))
    await eventually(lambda: _nothing_held(worker))


async def test_a_running_stage_goes_on_over_a_broken_stream(
    execution: ScriptedExecution, stream: Stream
) -> None:
    work = stage(payload(ENDLESS))
    stream.assign(work)
    await stream.until(lambda: work.ref.assignment_id in held(stream))
    stream.end()

    again = await execution.next_stream()

    assert [ref.assignment_id for ref in again.hello.held] == [work.ref.assignment_id]
    assert again.hello.worker_id == stream.hello.worker_id
    again.cancel(work)
    assert (await again.result_of(work)).outcome == workers_pb2.OUTCOME_CANCELLED


async def test_a_worker_asked_to_reconnect_comes_back_at_once(
    execution: ScriptedExecution, stream: Stream
) -> None:
    stream.send(reconnect=workers_pb2.Reconnect())
    again = await execution.next_stream()
    assert again.hello.worker_id == stream.hello.worker_id


async def test_what_the_server_says_is_lost_is_stopped_without_a_result(
    execution: ScriptedExecution, stream: Stream, worker: Worker
) -> None:
    work = stage(payload(ENDLESS))
    stream.assign(work)
    await stream.until(lambda: stream.bodies("progress"))
    busy = set(worker.pool.pids)
    execution.lost = [work.ref]

    await eventually(lambda: _nothing_held(worker))

    await eventually(lambda: _someone_gone(busy))
    assert not stream.bodies("result")


async def _someone_gone(pids: set[int]) -> bool:
    return any(not psutil.pid_exists(pid) for pid in pids)


async def test_a_worker_that_cannot_renew_its_lease_stops_what_it_runs(
    execution: ScriptedExecution, run_worker: Running
) -> None:
    execution.lease_ms, execution.heartbeat_ms = 400, 100
    async with run_worker() as worker:
        stream = await execution.next_stream()
        work = stage(payload(ENDLESS))
        stream.assign(work)
        await stream.until(lambda: work.ref.assignment_id in held(stream))
        execution.renews = False

        await eventually(lambda: _nothing_held(worker))

        await stream.until(lambda: not held(stream))
        assert not stream.bodies("result")


async def test_a_newer_fence_of_an_assignment_replaces_the_older(stream: Stream) -> None:
    old = stage(payload(ENDLESS))
    stream.assign(old)
    await stream.until(lambda: stream.bodies("progress"))
    new = stage(payload(NOOP), id=old.ref.assignment_id, fence=2, run_id=old.run_id)
    stream.assign(new)

    result = await stream.result_of(new)

    assert result.outcome == workers_pb2.OUTCOME_COMPLETED
    assert all(each.ref.fence == 2 for each in stream.bodies("result"))


async def test_progress_is_told_while_a_stage_runs(stream: Stream) -> None:
    work = stage(payload(ENDLESS))
    stream.assign(work)

    def states() -> dict[str, runs_pb2.TaskState.ValueType]:
        reports = [report for each in stream.bodies("progress") for report in each.assignments]
        assert all(report.ref == work.ref for report in reports)
        return {task.task: task.state for task in reports[-1].tasks} if reports else {}

    await stream.until(lambda: states().get("endless") == runs_pb2.TASK_STATE_RUNNING)

    assert states()["one"] == runs_pb2.TASK_STATE_COMPLETED
    assert states()["nowhere"] == runs_pb2.TASK_STATE_PENDING


async def test_a_stage_that_kills_its_process_fails_alone(stream: Stream, worker: Worker) -> None:
    neighbour, poison = stage(payload(ENDLESS)), stage(payload(ENDLESS))
    stream.assign(neighbour)
    await stream.until(lambda: stream.bodies("progress"))
    stream.assign(poison)
    os.kill(await process_of(worker, poison), signal.SIGKILL)

    result = await stream.result_of(poison)

    assert result.outcome == workers_pb2.OUTCOME_FAILED
    assert (result.error.code, getattr(result.error, "class")) == (
        "STAGE_CRASHED",
        runs_pb2.ERROR_CLASS_TRANSIENT,
    )
    assert "SIGKILL" in result.error.message
    assert neighbour.ref.assignment_id in {r.assignment_id for r in worker.supervisor.holdings.refs()}
    after = stage(payload(NOOP))
    stream.assign(after)
    assert (await stream.result_of(after)).outcome == workers_pb2.OUTCOME_COMPLETED


async def test_the_death_of_the_zygote_is_survived(stream: Stream, worker: Worker) -> None:
    work = stage(payload(ENDLESS))
    stream.assign(work)
    await stream.until(lambda: stream.bodies("progress"))
    zygote = worker.pool.zygote_pid
    assert zygote is not None
    os.kill(zygote, signal.SIGKILL)

    result = await stream.result_of(work)

    assert result.error.code == "STAGE_CRASHED"
    after = stage(payload(NOOP))
    stream.assign(after)
    assert (await stream.result_of(after)).outcome == workers_pb2.OUTCOME_COMPLETED


async def test_an_attempt_that_takes_too_long_is_stopped(stream: Stream) -> None:
    work = stage(payload(ENDLESS), timeout_ms=2_000)
    stream.assign(work)

    result = await stream.result_of(work)

    assert result.outcome == workers_pb2.OUTCOME_FAILED
    assert (result.error.code, getattr(result.error, "class")) == (
        "ATTEMPT_TIMEOUT",
        runs_pb2.ERROR_CLASS_TRANSIENT,
    )
    assert result.failed_task == "endless"


async def test_a_stage_that_ignores_a_cancel_is_killed_after_its_grace(
    stream: Stream, worker: Worker
) -> None:
    work = stage(payload(ENDLESS))
    stream.assign(work)
    pid = await process_of(worker, work)
    os.kill(pid, signal.SIGSTOP)
    stream.cancel(work, grace_ms=200)

    result = await stream.result_of(work)

    assert result.outcome == workers_pb2.OUTCOME_CANCELLED
    assert not psutil.pid_exists(pid)


async def test_a_payload_of_another_version_is_refused_precisely(stream: Stream) -> None:
    work = stage(b'{"format": 99}')
    stream.assign(work)
    result = await stream.result_of(work)
    assert (result.outcome, result.error.code) == (workers_pb2.OUTCOME_FAILED, "PAYLOAD_UNREADABLE")


async def test_on_shutdown_what_has_not_begun_is_given_back_and_the_rest_stopped(
    execution: ScriptedExecution, run_worker: Running
) -> None:
    async with run_worker(drain_seconds=0.2) as worker:
        stream = await execution.next_stream()
        running = stage(payload(ENDLESS))
        stream.assign(running)
        await stream.until(lambda: stream.bodies("progress"))
        late = stage(payload(ENDLESS))
        worker.supervisor.draining = True
        stream.assign(late)
        await stream.until(lambda: stream.bodies("release"))

    (release,) = stream.bodies("release")
    assert list(release.refs) == [late.ref]
    (result,) = stream.bodies("result")
    assert (result.ref, result.error.code) == (running.ref, "WORKER_SHUTDOWN")
    assert getattr(result.error, "class") == runs_pb2.ERROR_CLASS_TRANSIENT


async def test_no_process_outlives_the_worker(execution: ScriptedExecution, run_worker: Running) -> None:
    async with run_worker(drain_seconds=0.1) as worker:
        stream = await execution.next_stream()
        stream.assign(stage(payload(ENDLESS)))
        await stream.until(lambda: stream.bodies("progress"))
        pids = {*worker.pool.pids, worker.pool.zygote_pid}

    assert not [pid for pid in pids if pid is not None and psutil.pid_exists(pid)]


async def test_stage_processes_inherit_no_secret_and_no_thread(
    execution: ScriptedExecution, run_worker: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_SECRET_PG", "canary-9000")
    async with run_worker() as worker:
        await execution.next_stream()
        assert worker.pool.zygote_pid is not None
        zygote = psutil.Process(worker.pool.zygote_pid)
        processes = [zygote, *zygote.children()]
        assert len(processes) > 1
        assert zygote.num_threads() == 1
        for process in processes:
            assert "canary" not in str(process.environ())
