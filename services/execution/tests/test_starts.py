"""Starts that other services ask for: decided once, by the rule that comes with them, on any replica."""

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.execution.v1 import events_pb2, internal_pb2, runs_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.database import Database, driver

from .support import NOOP, PATIENT, TWO_STAGES, Cluster, Replica, state_of
from .test_runs import refused

LIMITED = NOOP + "execution: {max_concurrent_runs: 1}\n"
REFUSING = NOOP + "execution: {max_concurrent_runs: 1, queue_when_full: false}\n"
WITH_PARAMETER = NOOP + "parameters: {region: {type: string, required: true}}\n"
DAY, NEXT_DAY = Timestamp(seconds=1_767_225_600), Timestamp(seconds=1_767_312_000)


def ask(pipeline: str, key: str = "k", overlap: str = "", **more: Any) -> internal_pb2.StartRun:
    """A start by a schedule."""
    values: dict[str, Any] = {"trigger": runs_pb2.TRIGGER_KIND_SCHEDULE, "trigger_id": "nightly"}
    if overlap:
        values["overlap"] = internal_pb2.Overlap.Value(f"OVERLAP_{overlap}")
    return internal_pb2.StartRun(key=key, pipeline_id=pipeline, **{**values, **more})


async def start(replica: Replica, *starts: internal_pb2.StartRun) -> list[internal_pb2.StartDecision]:
    """The decisions on some starts."""
    request = internal_pb2.StartRunsRequest(starts=starts)
    answer = await replica.internal.StartRuns(request, metadata=replica.service, timeout=PATIENT)
    return list(answer.decisions)


async def check(replica: Replica, pipeline: str, parameters: bytes) -> None:
    """Checks values against what a pipeline declares."""
    request = internal_pb2.CheckParametersRequest(pipeline_id=pipeline, parameters=parameters)
    await replica.internal.CheckParameters(request, metadata=replica.service, timeout=PATIENT)


async def standing(replica: Replica, *keys: str) -> dict[str, internal_pb2.Start]:
    """What was decided under some keys, and how it stands."""
    request = internal_pb2.GetStartsRequest(keys=keys)
    answer = await replica.internal.GetStarts(request, metadata=replica.service, timeout=PATIENT)
    return {item.decision.key: item for item in answer.starts}


def told(decision: internal_pb2.StartDecision) -> tuple[str, str]:
    """The outcome and the reason."""
    outcome = internal_pb2.StartOutcome.Name(decision.outcome).removeprefix("START_OUTCOME_")
    return outcome, decision.reason


class TestStarting:
    async def test_a_started_run_has_what_it_was_started_with(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(WITH_PARAMETER)
        worker = await mesh.worker(replica)

        (decision,) = await start(
            replica,
            ask(
                pipeline,
                triggered_by="schedule nightly",
                parameters=b'{"region": "eu"}',
                priority=runs_pb2.PRIORITY_HIGH,
                logical_date=DAY,
                interval_start=DAY,
                interval_end=NEXT_DAY,
            ),
        )
        assignment = await worker.next_assignment()
        status = await replica.status(decision.run_id)

        assert told(decision) == ("STARTED", "")
        assert (assignment.run_id, assignment.logical_date) == (decision.run_id, DAY)
        assert (assignment.interval_start, assignment.interval_end) == (DAY, NEXT_DAY)
        assert (status.trigger, status.trigger_id) == (runs_pb2.TRIGGER_KIND_SCHEDULE, "nightly")
        assert (status.logical_date, status.interval_start, status.interval_end) == (DAY, DAY, NEXT_DAY)
        assert (status.triggered_by, status.priority) == ("schedule nightly", runs_pb2.PRIORITY_HIGH)
        assert status.parameters == b'{"region":"eu"}'

    async def test_the_same_key_gets_the_same_decision_whatever_has_become_of_it(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        first = await start(replica, ask(pipeline, "a"), ask(pipeline, "b"), ask(pipeline, "a"))
        mesh.metadata.delete(pipeline)

        again = await start(replica, ask(pipeline, "b"), ask(pipeline, "a"))
        (late,) = await start(replica, ask(pipeline, "c"))

        assert first[0] == first[2]
        assert again == [first[1], first[0]]
        assert told(late) == ("REFUSED", "NOT_FOUND")

    async def test_two_replicas_decide_each_key_once(self, mesh: Cluster, replica: Replica) -> None:
        other = await mesh.replica()
        pipelines = [mesh.metadata.add(NOOP) for _ in range(3)]
        starts = [ask(pipelines[n % 3], f"tick {n}", trigger_id=f"s{n % 7}") for n in range(300)]

        answers = await asyncio.gather(
            *(
                start(each, *starts[at : at + 200])
                for each in (replica, other, replica)
                for at in (0, 50, 100)
            )
        )

        runs = {item.key: item.run_id for answer in answers for item in answer}
        assert all(runs[item.key] == item.run_id for answer in answers for item in answer)
        request = runs_pb2.ListRunsRequest(limit=1, include_total=True)
        listed = await replica.runs.ListRuns(request, metadata=replica.editor, timeout=PATIENT)
        assert (len(set(runs.values())), listed.meta.total) == (300, 300)
        assert len(mesh.metadata.asked) <= 12

    async def test_what_cannot_run_is_refused_with_its_reason(self, mesh: Cluster, replica: Replica) -> None:
        inactive = mesh.metadata.add(NOOP)
        mesh.metadata.definitions[inactive].is_active = False
        asked = {
            "NOT_FOUND": ask(str(uuid.uuid4()), "1"),
            "PIPELINE_INACTIVE": ask(inactive, "2"),
            "INVALID_DEFINITION": ask(mesh.metadata.add("version: 1\nsources: []\n"), "3"),
            "INVALID_PARAMETERS": ask(mesh.metadata.add(WITH_PARAMETER), "4", parameters=b"{}"),
            "ENGINE_NOT_AVAILABLE": ask(mesh.metadata.add(NOOP + "engine: SPARK\n"), "5"),
            "": ask(inactive, "6", trigger=runs_pb2.TRIGGER_KIND_MANUAL),
        }

        decisions = await start(replica, *asked.values())

        assert [item.reason for item in decisions] == list(asked)
        assert [told(item)[0] for item in decisions] == ["REFUSED"] * 5 + ["STARTED"]
        assert "region" in decisions[3].message

    async def test_a_closed_pipeline_starts_nothing(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(NOOP)
        close = internal_pb2.ClosePipelineRequest(pipeline_id=pipeline)
        await replica.internal.ClosePipeline(close, metadata=replica.service, timeout=PATIENT)

        assert told((await start(replica, ask(pipeline)))[0]) == ("REFUSED", "PIPELINE_DELETING")

    async def test_what_passes_by_itself_is_no_decision(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(NOOP)
        mesh.metadata.is_away = True
        error = await refused(start(replica, ask(pipeline)))
        mesh.metadata.is_away = False

        assert error.code == "UNAVAILABLE"
        assert told((await start(replica, ask(pipeline)))[0]) == ("STARTED", "")

    @pytest.mark.parametrize(
        ("more", "path"),
        [
            ({"overlap": "SKIP", "trigger_id": ""}, "starts[0].triggerId"),
            ({"interval_start": DAY}, "starts[0].intervalEnd"),
            ({"key": "a\0b"}, "starts[0].key"),
            ({"queue_limit": -1}, "starts[0].queueLimit"),
            ({"pipeline_id": "7"}, "starts[0].pipelineId"),
        ],
    )
    async def test_bad_requests_say_where(
        self, mesh: Cluster, replica: Replica, more: dict[str, Any], path: str
    ) -> None:
        pipeline = more.pop("pipeline_id", None) or mesh.metadata.add(NOOP)

        error = await refused(start(replica, ask(pipeline, **more)))

        assert (error.code, [problem.path for problem in error.problems]) == ("INVALID_REQUEST", [path])

    async def test_events_say_what_started_a_run(self, mesh: Cluster, replica: Replica, db: Database) -> None:
        (decision,) = await start(replica, ask(mesh.metadata.add(NOOP)))

        async with db.read() as conn:
            row = await driver(conn).fetchrow("SELECT * FROM outbox_event")
        event = events_pb2.RunEvent.FromString(row["data"])

        assert (event.run_id, event.start_key, event.trigger_id) == (decision.run_id, "k", "nightly")
        assert (event.trigger, event.triggered_by) == (runs_pb2.TRIGGER_KIND_SCHEDULE, "ada")

    async def test_users_start_nothing_this_way(self, mesh: Cluster, replica: Replica) -> None:
        request = internal_pb2.StartRunsRequest(starts=[ask(mesh.metadata.add(NOOP))])
        admin = call_metadata(replica.authority.user("admin"))

        error = await refused(replica.internal.StartRuns(request, metadata=admin))

        assert error.code == "ROLE_REQUIRED"


class TestOverlap:
    async def test_skip_starts_nothing_while_one_of_the_trigger_is_live(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        worker = await mesh.worker(replica)
        first, second, other = await start(
            replica,
            ask(pipeline, "1", "SKIP"),
            ask(pipeline, "2", "SKIP"),
            ask(pipeline, "3", "SKIP", trigger_id="hourly"),
        )
        for _ in range(2):
            await worker.finish(await worker.next_assignment())
        await replica.ended(first.run_id)
        (later,) = await start(replica, ask(pipeline, "4", "SKIP"))

        assert [told(item)[0] for item in (first, second, other, later)] == [
            "STARTED",
            "SKIPPED",
            "STARTED",
            "STARTED",
        ]
        assert (second.reason, list(second.running_run_ids)) == ("OVERLAP_RUNNING", [first.run_id])
        assert not second.HasField("run_id")

    async def test_queued_ones_go_one_after_another_in_their_order(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        worker = await mesh.worker(replica)
        asked = [ask(pipeline, str(n), "QUEUE", queue_limit=2) for n in range(4)]

        decisions = await start(replica, *asked)

        assert [told(item) for item in decisions] == [
            ("STARTED", ""),
            ("HELD", "OVERLAP_RUNNING"),
            ("HELD", "OVERLAP_RUNNING"),
            ("SKIPPED", "QUEUE_FULL"),
        ]
        for decision in decisions[:3]:
            assignment = await worker.next_assignment()
            assert assignment.run_id == decision.run_id
            assert worker.assignments.empty()
            await worker.finish(assignment)
        assert state_of(await replica.ended(decisions[2].run_id)) == "COMPLETED"

    async def test_a_held_one_that_is_cancelled_lets_the_next_go_in_its_turn(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        worker = await mesh.worker(replica)
        first, second, third = await start(
            replica, *(ask(pipeline, str(n), "QUEUE", queue_limit=5) for n in range(3))
        )

        await replica.cancel(second.run_id)
        await worker.finish(await worker.next_assignment())

        assert (await worker.next_assignment()).run_id == third.run_id
        assert state_of(await replica.status(first.run_id)) == "COMPLETED"

    async def test_the_next_one_cancels_what_runs_and_waits_for_its_end(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(TWO_STAGES)
        worker = await mesh.worker(replica)
        (first,) = await start(replica, ask(pipeline, "1", "CANCEL_RUNNING"))
        running = await worker.next_assignment()

        (second,) = await start(replica, ask(pipeline, "2", "CANCEL_RUNNING"))
        (third,) = await start(replica, ask(pipeline, "3", "CANCEL_RUNNING"))

        assert [told(item) for item in (second, third)] == [("HELD", "OVERLAP_CANCELLING")] * 2
        assert (await worker.next_cancel()).ref == running.ref
        assert state_of(await replica.status(second.run_id)) == "CANCELLED"
        assert state_of(await replica.status(third.run_id)) == "PENDING"
        await worker.finish(running, "CANCELLED")
        assert (await worker.next_assignment()).run_id == third.run_id
        assert state_of(await replica.status(first.run_id)) == "CANCELLED"

    async def test_what_waits_for_a_slot_is_cancelled_at_once_and_holds_nothing(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(LIMITED)
        first, second = await start(
            replica, ask(pipeline, "1", "CANCEL_RUNNING"), ask(pipeline, "2", "CANCEL_RUNNING")
        )
        (third,) = await start(replica, ask(pipeline, "3", "CANCEL_RUNNING"))

        states = await standing(replica, "1", "2", "3")

        assert [told(item)[0] for item in (first, second, third)] == ["STARTED"] * 3
        assert [runs_pb2.RunState.Name(states[key].state) for key in ("1", "2", "3")] == [
            "RUN_STATE_CANCELLED",
            "RUN_STATE_CANCELLED",
            "RUN_STATE_PENDING",
        ]
        worker = await mesh.worker(replica)
        assert (await worker.next_assignment()).run_id == third.run_id

    async def test_the_limit_of_the_pipeline_holds_or_refuses_too(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        queueing, refusing = mesh.metadata.add(LIMITED), mesh.metadata.add(REFUSING)
        worker = await mesh.worker(replica)
        await start(replica, ask(queueing, "1", trigger_id="a"), ask(refusing, "2", trigger_id="a"))

        held, refused_one = await start(
            replica,
            ask(queueing, "3", "SKIP", trigger_id="b"),
            ask(refusing, "4", "SKIP", trigger_id="b"),
        )
        (skipped,) = await start(replica, ask(queueing, "5", "SKIP", trigger_id="b"))

        assert told(held) == ("HELD", "CONCURRENCY_LIMIT")
        assert told(refused_one) == ("REFUSED", "CONCURRENCY_LIMIT")
        assert told(skipped) == ("SKIPPED", "OVERLAP_RUNNING")
        for _ in range(3):
            await worker.finish(await worker.next_assignment())
        assert state_of(await replica.ended(held.run_id)) == "COMPLETED"

    async def test_two_replicas_never_start_two_of_one_trigger(self, mesh: Cluster, replica: Replica) -> None:
        other = await mesh.replica()
        pipeline = mesh.metadata.add(NOOP)
        rules = ("SKIP", "QUEUE", "CANCEL_RUNNING")
        answers = await asyncio.gather(
            *(
                start(
                    each,
                    *(ask(pipeline, f"{rule} {n}", rule, trigger_id=rule, queue_limit=4) for rule in rules),
                )
                for n in range(12)
                for each in (replica, other)
            )
        )

        outcomes = Counter(
            (item.key.split()[0], told(item)[0])
            for item in {item.key: item for answer in answers for item in answer}.values()
        )
        live = [
            run
            for run in (
                await standing(replica, *(f"{rule} {n}" for rule in rules for n in range(12)))
            ).values()
            if run.state == runs_pb2.RUN_STATE_PENDING
        ]

        assert (outcomes["SKIP", "STARTED"], outcomes["SKIP", "SKIPPED"]) == (1, 11)
        assert (outcomes["QUEUE", "STARTED"], outcomes["QUEUE", "HELD"]) == (1, 4)
        assert sum(run.decision.key.startswith("CANCEL") for run in live) == 1

    async def test_a_run_under_no_rule_that_ends_lets_the_queue_go_on(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        pipeline = mesh.metadata.add(NOOP)
        worker = await mesh.worker(replica)
        (by_hand,) = await start(replica, ask(pipeline, "1", trigger=runs_pb2.TRIGGER_KIND_MANUAL))
        (queued,) = await start(replica, ask(pipeline, "2", "QUEUE", queue_limit=1))

        await worker.finish(await worker.next_assignment())

        assert told(by_hand)[0] == "STARTED"
        assert (await worker.next_assignment()).run_id == queued.run_id


class TestCancelling:
    async def test_several_are_cancelled_and_each_is_told(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(NOOP)
        worker = await mesh.worker(replica, slots=1)
        running, waiting = (await replica.run(pipeline)).run_id, (await replica.run(pipeline)).run_id
        await worker.next_assignment()
        stranger = call_metadata(
            replica.authority.service("scheduler", tenant=uuid.uuid4(), on_behalf_of="eve")
        )
        request = internal_pb2.CancelRunsRequest(
            run_ids=[running, waiting, str(uuid.uuid4())], reason="not needed any more"
        )

        nothing = await replica.internal.CancelRuns(request, metadata=stranger, timeout=PATIENT)
        answer = await replica.internal.CancelRuns(request, metadata=replica.service, timeout=PATIENT)

        assert len(nothing.runs) == 0
        assert {run.run_id: (run.state, run.cancel_requested) for run in answer.runs} == {
            running: (runs_pb2.RUN_STATE_RUNNING, True),
            waiting: (runs_pb2.RUN_STATE_CANCELLED, False),
        }

    async def test_decisions_of_another_tenant_are_not_told(self, mesh: Cluster, replica: Replica) -> None:
        await start(replica, ask(mesh.metadata.add(NOOP)))
        stranger = call_metadata(
            replica.authority.service("scheduler", tenant=uuid.uuid4(), on_behalf_of="eve")
        )

        request = internal_pb2.GetStartsRequest(keys=["k"])
        answer = await replica.internal.GetStarts(request, metadata=stranger, timeout=PATIENT)

        assert len(answer.starts) == 0
        assert list(await standing(replica, "k", "never")) == ["k"]


class TestChecking:
    async def test_values_are_checked_as_a_start_would(self, mesh: Cluster, replica: Replica) -> None:
        pipeline = mesh.metadata.add(WITH_PARAMETER)
        await check(replica, pipeline, b'{"region": "eu"}')

        unknown = await refused(check(replica, pipeline, b'{"region": "eu", "regoin": "eu"}'))
        missing = await refused(check(replica, pipeline, b""))

        assert {unknown.code, missing.code} == {"INVALID_PARAMETERS"}
        assert [each.path for each in unknown.problems] == ["parameters.regoin"]
        assert [each.path for each in missing.problems] == ["parameters.region"]

    async def test_what_cannot_run_now_declares_nothing(self, mesh: Cluster, replica: Replica) -> None:
        await check(replica, mesh.metadata.add("version: 1\nsources: 7\n"), b'{"region": "eu"}')
        unknown = await refused(check(replica, str(uuid.uuid4()), b""))
        assert unknown.code == "NOT_FOUND"
