"""What goes wrong: lost workers, broken streams, cancels that race, replicas that die, pipelines that go
away.
"""

import asyncio
import json
import uuid

import grpc
import pytest
from headrace.execution.v1 import internal_pb2, runs_pb2, workers_pb2, workers_pb2_grpc
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.testing.broker import NatsServer
from headrace_chassis.testing.waiting import eventually

from .support import (
    LOADING,
    NOOP,
    PATIENT,
    TWO_STAGES,
    Cluster,
    Replica,
    ScriptedWorker,
    failure,
    receipt,
    state_of,
    task_states,
)


async def code_of(call: object) -> str:
    """The reason for which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value).code


class TestWorkersThatAreGone:
    async def test_a_stage_is_offered_again_when_its_lease_runs_out(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        gone = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        first = await gone.next_assignment()
        await gone.drop()

        replica.travel(20)
        worker = await mesh.worker(replica)
        second = await worker.next_assignment()
        await worker.finish(second, receipts=[receipt(second.ref.fence)])

        assert second.ref.assignment_id == first.ref.assignment_id
        assert second.ref.fence > first.ref.fence
        status = await replica.ended(accepted.run_id)
        assert (state_of(status), status.attempt) == ("COMPLETED", 2)

    async def test_a_result_under_an_old_fence_is_refused_and_acknowledged(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        late = await mesh.worker(replica, slots=1)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        first = await late.next_assignment()
        await late.drop()
        replica.travel(20)
        worker = await mesh.worker(replica)
        second = await worker.next_assignment()

        back = await mesh.worker(replica, worker_id=late.worker_id, held=(first.ref,), slots=1)
        await back.finish(first, "FAILED", error=failure("LATE", "DATA"))

        assert list(back.welcome.lost) == [first.ref]
        assert await back.next_ack() == first.ref
        assert state_of(await replica.status(accepted.run_id)) == "RUNNING"
        await worker.finish(second, receipts=[receipt(second.ref.fence)])
        assert state_of(await replica.ended(accepted.run_id)) == "COMPLETED"

    async def test_heartbeats_keep_leases_and_tell_what_was_lost(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        await replica.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()
        stranger = workers_pb2.AssignmentRef(assignment_id=str(uuid.uuid4()), fence=1)
        for _ in range(3):
            replica.travel(10)
            ack = await worker.heartbeat(assignment.ref, stranger)
            assert (ack.renewed, list(ack.lost)) == (True, [stranger])

    async def test_a_poison_stage_is_parked_and_its_neighbours_go_on(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        poison = await replica.run(mesh.metadata.add(LOADING))
        for _ in range(3):
            victim = await mesh.worker(replica, slots=1)
            await victim.next_assignment()
            await victim.drop()
            replica.travel(20)
        worker = await mesh.worker(replica)
        settlement = await worker.next_assignment()
        neighbour = await replica.run(mesh.metadata.add(NOOP))
        await worker.finish(await worker.next_assignment())
        await worker.finish(settlement)

        status = await replica.ended(poison.run_id)
        assert settlement.kind == workers_pb2.ASSIGNMENT_KIND_SETTLE
        assert state_of(status) == "FAILED"
        (error,) = [task.error for task in status.tasks if task.HasField("error")]
        assert error.code == "WORKER_LOST"
        assert "parked after 3 attempts" in error.message
        assert state_of(await replica.ended(neighbour.run_id)) == "COMPLETED"

    async def test_what_a_worker_gives_back_goes_to_another(self, mesh: Cluster, replica: Replica) -> None:
        first = await mesh.worker(replica, slots=1)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        assignment = await first.next_assignment()
        second = await mesh.worker(replica, slots=1)

        await first.send(release=workers_pb2.ReleaseAssignments(refs=[assignment.ref]))
        await first.drop()
        again = await _from_either(first, second)
        await second.finish(again, receipts=[receipt(again.ref.fence)]) if again else None

        assert again.attempt == 1
        assert state_of(await replica.ended(accepted.run_id)) == "COMPLETED"


class TestStreamsThatBreak:
    async def test_a_worker_goes_on_with_what_it_has_on_another_replica(self, mesh: Cluster) -> None:
        one, two = await mesh.replica(), await mesh.replica()
        worker = await mesh.worker(one)
        accepted = await one.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()
        await worker.drop()

        moved = await mesh.worker(two, worker_id=worker.worker_id, held=(assignment.ref,))
        await moved.finish(assignment, receipts=[receipt(assignment.ref.fence)])

        assert list(moved.welcome.lost) == []
        assert await moved.next_ack() == assignment.ref
        status = await two.ended(accepted.run_id)
        assert (state_of(status), status.attempt) == ("COMPLETED", 1)

    async def test_a_lease_whose_message_never_came_is_offered_again_at_the_hello(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        never_seen = await worker.next_assignment()
        await worker.drop()

        back = await mesh.worker(replica, worker_id=worker.worker_id)
        again = await back.next_assignment()
        await back.finish(again, receipts=[receipt(again.ref.fence)])

        assert again.ref.fence > never_seen.ref.fence
        assert again.attempt == 1
        assert state_of(await replica.ended(accepted.run_id)) == "COMPLETED"

    async def test_or_at_a_heartbeat_after_a_grace(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        never_seen = await worker.next_assignment()

        await worker.heartbeat()
        assert worker.assignments.empty()
        replica.travel(7)
        await worker.heartbeat()

        again = await worker.next_assignment()
        assert again.ref.fence > never_seen.ref.fence
        await worker.finish(again, receipts=[receipt(again.ref.fence)])
        assert state_of(await replica.ended(accepted.run_id)) == "COMPLETED"

    async def test_two_replicas_hand_each_stage_out_once(self, mesh: Cluster) -> None:
        one, two = await mesh.replica(), await mesh.replica()
        pipeline = mesh.metadata.add(NOOP)
        runs = [await one.run(pipeline) for _ in range(60)]
        seen: list[str] = []

        async def work(worker: ScriptedWorker) -> None:
            while True:
                assignment = await worker.assignments.get()
                seen.append(assignment.ref.assignment_id)
                await worker.finish(assignment)

        workers = [await mesh.worker(replica, slots=5) for replica in (one, two)]
        working = [asyncio.create_task(work(worker)) for worker in workers]
        for run in runs:
            assert state_of(await two.ended(run.run_id)) == "COMPLETED"
        for task in working:
            task.cancel()

        assert (len(seen), len(set(seen))) == (60, 60)

    async def test_a_replica_that_goes_down_sends_its_workers_away(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)

        await replica.parts.workers.drain()

        async def told() -> bool:
            return worker.reconnects == 1

        assert await eventually(told)

    async def test_a_stream_begins_with_a_hello_under_the_name_of_its_token(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        stub = workers_pb2_grpc.WorkerServiceStub(replica.served.channel)
        credentials = call_metadata(replica.authority.worker("worker-1"))
        hello = workers_pb2.WorkerHello(worker_id=str(uuid.uuid4()), name="worker-2", slots=1)
        for body in ({"hello": hello}, {"heartbeat": workers_pb2.Heartbeat()}):
            call = stub.Connect(metadata=credentials)
            await call.write(workers_pb2.ConnectRequest(**body))
            assert await code_of(call.read()) == "INVALID_REQUEST"
        assert await code_of(stub.Connect(metadata=replica.editor).read()) == "ROLE_REQUIRED"


class TestCancels:
    async def test_a_run_that_waits_is_cancelled_at_once(self, mesh: Cluster, replica: Replica) -> None:
        accepted = await replica.run(mesh.metadata.add(TWO_STAGES))

        answer = await replica.cancel(accepted.run_id, reason="no longer needed")
        again = await replica.cancel(accepted.run_id)

        assert (state_of(answer), state_of(again)) == ("CANCELLED", "CANCELLED")
        assert set(task_states(await replica.status(accepted.run_id)).values()) == {"CANCELLED"}

    async def test_a_run_with_a_worker_is_cancelled_when_the_worker_says_so(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(TWO_STAGES))
        assignment = await worker.next_assignment()

        cancelling = asyncio.create_task(replica.cancel(accepted.run_id))
        cancel = await worker.next_cancel()
        assert (cancel.ref, cancel.reason) == (assignment.ref, workers_pb2.CANCEL_REASON_CANCELLED)
        assert (await replica.status(accepted.run_id)).cancel_requested
        await worker.finish(assignment, "CANCELLED")

        assert state_of(await cancelling) == "CANCELLED"
        status = await replica.status(accepted.run_id)
        assert (status.cancel_requested, set(task_states(status).values())) == (False, {"CANCELLED"})

    async def test_completion_that_wins_the_race_is_the_truth(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()

        cancelling = asyncio.create_task(replica.cancel(accepted.run_id))
        await worker.next_cancel()
        await worker.finish(assignment, receipts=[receipt(assignment.ref.fence)])

        assert state_of(await cancelling) == "COMPLETED"
        assert await code_of(replica.cancel(accepted.run_id)) == "RUN_FINISHED"

    async def test_it_tells_the_truth_when_nothing_has_stopped_in_time(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        await worker.next_assignment()

        answer = await replica.cancel(accepted.run_id, timeout=1.0)

        assert (state_of(answer), answer.cancel_requested) == ("RUNNING", True)

    async def test_while_a_retry_waits(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING, max_retries=3))
        await worker.finish(await worker.next_assignment(), "FAILED", error=failure("GONE", "TRANSIENT"))
        await worker.next_ack()

        assert state_of(await replica.cancel(accepted.run_id)) == "CANCELLED"

    async def test_a_worker_that_is_gone_is_settled_by_another(self, mesh: Cluster, replica: Replica) -> None:
        gone = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        first = await gone.next_assignment()
        await gone.drop()
        await replica.cancel(accepted.run_id, timeout=0.6)

        replica.travel(20)
        worker = await mesh.worker(replica)
        settlement = await worker.next_assignment()
        await worker.finish(settlement)

        assert settlement.kind == workers_pb2.ASSIGNMENT_KIND_SETTLE
        assert settlement.root_run_id == accepted.run_id
        assert settlement.ref.fence > first.ref.fence
        assert state_of(await replica.ended(accepted.run_id)) == "CANCELLED"

    async def test_nobody_to_settle_ends_it_with_a_warning(self, mesh: Cluster, replica: Replica) -> None:
        gone = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        await gone.next_assignment()
        await gone.drop()
        await replica.cancel(accepted.run_id, timeout=0.6)
        replica.travel(20)

        async def settling() -> bool:
            return await replica.parts.store.has_waiting()

        assert await eventually(settling)
        replica.travel(61)

        status = await replica.ended(accepted.run_id)
        assert state_of(status) == "CANCELLED"
        assert [warning.code for warning in status.warnings] == ["UNSETTLED"]

    async def test_the_worker_of_another_replica_hears_of_it(
        self, mesh: Cluster, nats_server: NatsServer
    ) -> None:
        one = await mesh.replica(nats_url=nats_server.url)
        two = await mesh.replica()
        worker = await mesh.worker(one)
        accepted = await one.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()

        cancelling = asyncio.create_task(two.cancel(accepted.run_id))
        await worker.next_cancel()
        await worker.finish(assignment, "CANCELLED")

        assert state_of(await cancelling) == "CANCELLED"

    async def test_storms_of_cancels_end_in_one_state_told_once(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()

        cancels = [asyncio.create_task(replica.cancel(accepted.run_id)) for _ in range(10)]
        await worker.next_cancel()
        await worker.finish(assignment, "CANCELLED")
        await worker.finish(assignment, receipts=[receipt(assignment.ref.fence)])

        assert {state_of(await cancel) for cancel in cancels} == {"CANCELLED"}


class TestTimeouts:
    async def test_an_attempt_that_takes_too_long_is_stopped_and_counts_as_a_retry(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        pipeline = mesh.metadata.add(LOADING, timeout_seconds=60, max_retries=1, retry_delay_seconds=1)
        accepted = await replica.run(pipeline)
        assignment = await worker.next_assignment()
        assert assignment.timeout_ms == 60_000
        replica.travel(10)
        await worker.heartbeat(assignment.ref)
        for _ in range(6):
            replica.travel(10)
            await worker.heartbeat(assignment.ref)

        cancel = await worker.next_cancel()
        await worker.finish(assignment, "CANCELLED")
        await worker.next_ack()
        replica.travel(3)
        await worker.heartbeat()
        again = await worker.next_assignment()

        assert cancel.reason == workers_pb2.CANCEL_REASON_TIMED_OUT
        assert again.attempt == 2
        await worker.finish(again, receipts=[receipt(again.ref.fence)])
        assert state_of(await replica.ended(accepted.run_id)) == "COMPLETED"

    async def test_a_run_that_waits_too_long_fails_where_the_operator_says_so(self, mesh: Cluster) -> None:
        replica = await mesh.replica(queue_timeout_seconds=60)
        accepted = await replica.run(mesh.metadata.add(NOOP))

        replica.travel(61)

        status = await replica.ended(accepted.run_id)
        assert (state_of(status), list(status.errors)) == ("FAILED", [accepted.run_id])


class TestSecrets:
    async def test_they_are_for_the_holder_of_the_lease_and_for_what_the_stage_names(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        mesh.metadata.connections["warehouse"] = definitions_pb2.ResolvedConnection(
            reference="warehouse", id=str(uuid.uuid4()), name="warehouse", type="postgresql", secret="s3cret"
        )
        worker = await mesh.worker(replica)
        await replica.run(mesh.metadata.add(LOADING))
        assignment = await worker.next_assignment()
        stub = workers_pb2_grpc.WorkerServiceStub(replica.served.channel)

        def resolve(worker_id: str, fence: int) -> object:
            ref = workers_pb2.AssignmentRef(assignment_id=assignment.ref.assignment_id, fence=fence)
            request = workers_pb2.ResolveSecretsRequest(worker_id=worker_id, ref=ref)
            return stub.ResolveSecrets(request, metadata=call_metadata(replica.authority.worker("worker-1")))

        answer = await resolve(worker.worker_id, assignment.ref.fence)  # type: ignore[misc]

        assert [found.secret for found in answer.connections] == ["s3cret"]
        assert list(mesh.metadata.resolved[0].connections) == ["warehouse"]
        assert await code_of(resolve(worker.worker_id, assignment.ref.fence - 1)) == "LEASE_LOST"
        assert await code_of(resolve(str(uuid.uuid4()), assignment.ref.fence)) == "LEASE_LOST"
        await worker.finish(assignment, receipts=[receipt(assignment.ref.fence)])
        await worker.next_ack()
        assert await code_of(resolve(worker.worker_id, assignment.ref.fence)) == "LEASE_LOST"


class TestProbes:
    @staticmethod
    def ask(replica: Replica, kind: str = "TEST", timeout: float = PATIENT) -> object:
        request = internal_pb2.ProbeRequest(
            kind=internal_pb2.ProbeKind.Value(f"PROBE_KIND_{kind}"),
            workspace_id=str(uuid.uuid4()),
            connection_id=str(uuid.uuid4()),
            limit=5,
        )
        return replica.internal.Probe(request, metadata=replica.service, timeout=timeout)

    async def test_a_worker_answers(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)

        asked = asyncio.ensure_future(self.ask(replica, "TABLES"))  # type: ignore[call-overload]
        assignment = await worker.next_assignment()
        await worker.finish(assignment, answer=b'{"tables": []}')

        assert (await asked).answer == b'{"tables": []}'
        assert assignment.kind == workers_pb2.ASSIGNMENT_KIND_LIST_TABLES
        assert json.loads(assignment.payload)["limit"] == 5

    async def test_a_worker_that_could_not_answer_says_why(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)

        asked = asyncio.ensure_future(self.ask(replica))  # type: ignore[call-overload]
        crash = failure("STAGE_CRASHED", "TRANSIENT", "the process died")
        await worker.finish(await worker.next_assignment(), "FAILED", error=crash)

        told = {"code": "STAGE_CRASHED", "class": "TRANSIENT", "message": "the process died"}
        assert json.loads((await asked).answer) == {"success": False, **told, "error": told}

    async def test_a_worker_of_another_replica_answers(self, mesh: Cluster) -> None:
        one, two = await mesh.replica(), await mesh.replica()
        worker = await mesh.worker(one)

        asked = asyncio.ensure_future(self.ask(two))  # type: ignore[call-overload]
        await worker.finish(await worker.next_assignment(), answer=b"{}")

        assert (await asked).answer == b"{}"

    async def test_without_a_worker_it_says_so_within_its_deadline(self, replica: Replica) -> None:
        assert await code_of(self.ask(replica, timeout=1.5)) == "NO_WORKER"

    async def test_it_is_for_services_only(self, replica: Replica) -> None:
        request = internal_pb2.ClosePipelineRequest(pipeline_id=str(uuid.uuid4()))

        assert await code_of(replica.internal.ClosePipeline(request, metadata=replica.editor)) == (
            "ROLE_REQUIRED"
        )


class TestPipelinesThatGo:
    @staticmethod
    def close(replica: Replica, pipeline: str, *, force: bool = False, attempt: int = 0) -> object:
        request = internal_pb2.ClosePipelineRequest(pipeline_id=pipeline, force=force, attempt=attempt)
        return replica.internal.ClosePipeline(request, metadata=replica.service, timeout=PATIENT)

    async def test_live_runs_are_named_and_the_pipeline_stays_open(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        run = await replica.run(pipeline)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.close(replica, pipeline)  # type: ignore[misc]

        error = from_rpc_error(caught.value)
        assert (error.code, error.metadata["runIds"]) == ("PIPELINE_HAS_LIVE_RUNS", run.run_id)
        await replica.run(pipeline)

    async def test_an_attempt_that_comes_late_does_not_close_what_lives_on(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        """It was given up where it came from; meanwhile, the run that stood against it has ended."""
        pipeline = mesh.metadata.add(NOOP)
        run = await replica.run(pipeline)
        assert await code_of(self.close(replica, pipeline, attempt=2)) == "PIPELINE_HAS_LIVE_RUNS"
        await replica.cancel(run.run_id)

        assert await code_of(self.close(replica, pipeline, attempt=1)) == "PIPELINE_HAS_LIVE_RUNS"
        assert await code_of(self.close(replica, pipeline, attempt=2)) == "PIPELINE_HAS_LIVE_RUNS"

        await replica.cancel((await replica.run(pipeline)).run_id)
        await self.close(replica, pipeline, attempt=3)  # type: ignore[misc]
        assert await code_of(replica.run(pipeline)) == "PIPELINE_DELETING"

    async def test_force_cancels_them_and_nothing_is_accepted_after(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(LOADING)
        worker = await mesh.worker(replica, slots=1)
        runs = [await replica.run(pipeline) for _ in range(3)]
        assignment = await worker.next_assignment()

        closing = asyncio.ensure_future(self.close(replica, pipeline, force=True))  # type: ignore[call-overload]
        await worker.next_cancel()
        await worker.finish(assignment, "CANCELLED")
        await closing

        assert {state_of(await replica.status(run.run_id)) for run in runs} == {"CANCELLED"}
        assert await code_of(replica.run(pipeline)) == "PIPELINE_DELETING"

    async def test_no_run_slips_in_while_it_closes(self, mesh: Cluster, replica: Replica) -> None:
        pipelines = [mesh.metadata.add(NOOP) for _ in range(10)]

        async def attempt(pipeline: str) -> tuple[bool, bool]:
            run, closed = await asyncio.gather(
                replica.run(pipeline),
                asyncio.ensure_future(self.close(replica, pipeline)),  # type: ignore[call-overload]
                return_exceptions=True,
            )
            return isinstance(run, runs_pb2.RunResponse), not isinstance(closed, BaseException)

        outcomes = [await attempt(pipeline) for pipeline in pipelines]

        assert (True, True) not in outcomes
        assert (False, False) not in outcomes

    async def test_a_deleted_pipeline_is_purged_and_acknowledged(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        worker = await mesh.worker(replica)
        pipeline, other = mesh.metadata.add(NOOP), mesh.metadata.add(NOOP)
        runs = [await replica.run(each) for each in (pipeline, pipeline, other)]
        for _ in runs:
            await worker.finish(await worker.next_assignment())
        for run in runs:
            await replica.ended(run.run_id)

        mesh.metadata.delete(pipeline)
        agents = {agent.name: agent for agent in replica.parts.agents()}
        for name in ("execution.purges", "purger"):
            await agents[name].run_once()

        async def acknowledged() -> bool:
            return mesh.metadata.acknowledged == [pipeline]

        assert await eventually(acknowledged)
        assert await code_of(replica.status(runs[0].run_id)) == "NOT_FOUND"
        assert state_of(await replica.status(runs[2].run_id)) == "COMPLETED"


async def _from_either(first: ScriptedWorker, second: ScriptedWorker) -> workers_pb2.Assignment:
    """What the second worker gets; the first may have been given it again before its stream broke."""
    return await asyncio.wait_for(second.assignments.get(), PATIENT)
