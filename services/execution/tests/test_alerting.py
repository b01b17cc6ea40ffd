"""Alerts over a real cluster: what runs come to is found, taken on and resolved."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.message import Message
from headrace.common.v1 import event_log_pb2
from headrace.execution.v1 import alerts_pb2, alerts_pb2_grpc
from headrace.scheduler.v1 import dependency_events_pb2, events_pb2
from headrace_chassis.agents import Agent
from headrace_chassis.channels import call_metadata
from headrace_chassis.database import Database, driver
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.ids import uuid7
from headrace_chassis.messages import timestamp
from headrace_chassis.testing.authority import TENANT
from headrace_chassis.testing.waiting import eventually
from headrace_execution.alerting.late_watcher import LateWatcher
from headrace_execution.alerting.schedule_follower import ScheduleFollower
from headrace_execution.domain.usual import Sample, Usual

from .support import NOOP, PATIENT, WORKSPACE, Cluster, Replica, ScriptedWorker, failure
from .test_store import ask


def service(replica: Replica) -> "alerts_pb2_grpc.AlertServiceAsyncStub":
    return alerts_pb2_grpc.AlertServiceStub(replica.served.channel)


async def alerts(replica: Replica, **narrow: Any) -> list[alerts_pb2.Alert]:
    request = alerts_pb2.ListAlertsRequest(**narrow)
    return list((await service(replica).ListAlerts(request, metadata=replica.editor)).data)


def followers(replica: Replica) -> dict[str, Agent]:
    """Agents beside those that run by themselves, so that tests need not wait for these."""
    return {agent.name: agent for agent in replica.parts.agents()}


async def until_alert(replica: Replica, count: int = 1, **narrow: Any) -> alerts_pb2.Alert:
    async def there() -> alerts_pb2.Alert | None:
        await followers(replica)["execution.metrics"].run_once()
        return next((each for each in await alerts(replica, **narrow) if each.count >= count), None)

    found = await eventually(there, within=PATIENT)
    assert found is not None
    return found


async def run_to(replica: Replica, worker: ScriptedWorker, pipeline: str, error: str | None = None) -> str:
    """A run that completes, or fails with an error of that code."""
    run = await replica.run(pipeline)
    assignment = await worker.next_assignment()
    if error is None:
        await worker.finish(assignment)
    else:
        await worker.finish(assignment, "FAILED", error=failure(error, "DATA"), failed_task="noop")
    await replica.ended(run.run_id)
    return run.run_id


async def refusal(call: Any) -> str:
    """The reason for which a call is refused."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).code
    raise AssertionError("it was not refused")


async def told(db: Database) -> list[str]:
    """The kinds of events of alerts, as they were told."""
    async with db.read() as conn:
        rows = await driver(conn).fetch(
            "SELECT type FROM outbox_event WHERE type LIKE '%.alert.%' ORDER BY id"
        )
    return [row["type"].split(".")[-2] for row in rows]


async def test_a_failing_pipeline_has_one_alert_until_a_good_run(mesh: Cluster, db: Database) -> None:
    replicas = [await mesh.replica(), await mesh.replica()]  # both follow; each end is judged once
    replica = replicas[0]
    worker = await mesh.worker(replica)
    pipeline = mesh.metadata.add(NOOP)
    first = await run_to(replica, worker, pipeline, "QUALITY_CHECK_FAILED")
    opened = await until_alert(replica, pipeline_id=pipeline)
    second = await run_to(replica, worker, pipeline, "QUALITY_CHECK_FAILED")

    alert = await until_alert(replicas[1], count=2, status=alerts_pb2.ALERT_STATUS_OPEN)

    assert (opened.run_id, alert.run_id, alert.id) == (first, second, opened.id)
    assert alert.rule == alerts_pb2.ALERT_RULE_QUALITY_FAILED
    assert (alert.severity, alert.message) == (alerts_pb2.ALERT_SEVERITY_CRITICAL, "noop: it did not work")
    secret = alerts_pb2.AcknowledgeAlertRequest(id=alert.id, note="see https://ada:lovelace@db")
    assert (
        await refusal(service(replica).AcknowledgeAlert(secret, metadata=replica.editor)) == "INVALID_REQUEST"
    )
    request = alerts_pb2.AcknowledgeAlertRequest(id=alert.id, note="mine")
    taken = await service(replica).AcknowledgeAlert(request, metadata=replica.editor)
    assert (taken.status, taken.acknowledged_by, taken.note) == (
        alerts_pb2.ALERT_STATUS_ACKNOWLEDGED,
        "ada",
        "mine",
    )
    good = await run_to(replica, worker, pipeline)
    resolved = await until_alert(replica, status=alerts_pb2.ALERT_STATUS_RESOLVED)
    assert (resolved.id, resolved.count, resolved.resolved_by_run_id) == (alert.id, 2, good)
    again = service(replica).AcknowledgeAlert(request, metadata=replica.editor)
    assert await refusal(again) == "ALERT_RESOLVED"
    assert await told(db) == ["opened", "acknowledged", "resolved"]


async def test_alerts_of_others_are_not_there(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)
    await run_to(replica, worker, mesh.metadata.add(NOOP), "BROKEN")
    alert = await until_alert(replica)
    authority = replica.authority
    request = alerts_pb2.AcknowledgeAlertRequest(id=alert.id)
    for token in (
        authority.user("editor", tenant=UUID(int=7)),
        authority.user("editor", workspaces=[UUID(int=8)]),
    ):
        metadata = call_metadata(token)
        page = await service(replica).ListAlerts(alerts_pb2.ListAlertsRequest(), metadata=metadata)
        assert not page.data
        assert await refusal(service(replica).AcknowledgeAlert(request, metadata=metadata)) == "NOT_FOUND"
    viewer = call_metadata(authority.user("viewer"))
    assert await refusal(service(replica).AcknowledgeAlert(request, metadata=viewer)) == "ROLE_REQUIRED"


async def test_a_run_that_goes_on_is_found_late_once_by_all_replicas(mesh: Cluster) -> None:
    replicas = [await mesh.replica(), await mesh.replica()]
    worker = await mesh.worker(replicas[0])
    pipeline = mesh.metadata.add(NOOP)
    usual = Usual(tuple(Sample(1000, 1) for _ in range(12)))
    await ask(replicas[0].parts.store, lambda tx: tx.alerts.remember({UUID(pipeline): usual}))
    run = await replicas[0].run(pipeline)
    assignment = await worker.next_assignment()

    for replica in replicas:
        replica.travel(60)
        watcher = LateWatcher(replica.parts.store, replica.parts.signals)
        for _ in range(2):
            assert not await watcher.run_once()

    (alert,) = await alerts(replicas[1])
    assert (alert.rule, alert.run_id, alert.count) == (alerts_pb2.ALERT_RULE_RUN_LATE, run.run_id, 1)
    await worker.finish(assignment)
    await until_alert(replicas[0], status=alerts_pb2.ALERT_STATUS_RESOLVED)


async def test_what_is_usual_is_learnt_from_completed_runs(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)
    pipeline = mesh.metadata.add(NOOP)
    for error in (None, "BROKEN", None):
        await run_to(replica, worker, pipeline, error)

    async def learnt() -> bool:
        await followers(replica)["execution.metrics"].run_once()
        usual = await ask(replica.parts.store, lambda tx: tx.alerts.usual([UUID(pipeline)]))
        return bool(usual) and len(usual[UUID(pipeline)].samples) == 2

    assert await eventually(learnt, within=PATIENT)


async def test_nothing_is_left_of_a_deleted_pipeline(mesh: Cluster, replica: Replica, db: Database) -> None:
    worker = await mesh.worker(replica)
    pipeline = mesh.metadata.add(NOOP)
    await run_to(replica, worker, pipeline, "BROKEN")
    await until_alert(replica)
    mesh.metadata.delete(pipeline)
    for name in ("execution.purges", "purger"):
        await followers(replica)[name].run_once()

    async def gone() -> bool:
        return pipeline in mesh.metadata.acknowledged

    assert await eventually(gone, within=PATIENT)
    assert await alerts(replica) == []


def scheduler_event(kind: str, subject: str, payload: Message) -> event_log_pb2.Event:
    return event_log_pb2.Event(
        id=str(uuid7()),
        type=f"io.headrace.{kind}.v1",
        tenant=str(TENANT),
        subject=subject,
        time=timestamp(datetime.now(UTC)),
        data=payload.SerializeToString(),
    )


async def test_what_the_scheduler_could_not_do_is_told(mesh: Cluster, replica: Replica, db: Database) -> None:
    pipeline, gone = str(uuid7()), uuid7()
    missed, fine = (
        events_pb2.ScheduleEvent(
            schedule_id=str(uuid7()), pipeline_id=pipeline, workspace_id=str(WORKSPACE), active=True
        )
        for _ in range(2)
    )
    missed.missed_since.FromJsonString("2026-01-01T00:00:00Z")
    missed.missed_until.FromJsonString("2026-01-01T05:00:00Z")
    released = dependency_events_pb2.DependencyEvent(
        upstream_pipeline_id=str(uuid7()), downstream_pipeline_id=pipeline, workspace_id=str(WORKSPACE)
    )
    of_gone = dependency_events_pb2.DependencyEvent(
        upstream_pipeline_id=str(uuid7()), downstream_pipeline_id=str(gone), workspace_id=str(WORKSPACE)
    )
    refused = events_pb2.StartsRefusedEvent()
    for _ in range(2):
        start = refused.starts.add(
            pipeline_id=pipeline, workspace_id=str(WORKSPACE), reason="INVALID_PARAMETERS"
        )
        start.schedule_id, start.message = missed.schedule_id, "parameters do not fit: n"
    await ask(replica.parts.store, lambda tx: tx.pipelines.ask_purge({gone: TENANT}))
    follower = ScheduleFollower(replica.parts.store)
    async with db.transaction() as conn:
        await follower.handle(
            conn,
            [
                scheduler_event(
                    "schedule.ticked", pipeline, events_pb2.SchedulesTickedEvent(schedules=[missed, fine])
                ),
                scheduler_event("dependency.released", pipeline, released),
                scheduler_event("schedule.refused", pipeline, refused),
                scheduler_event("dependency.released", str(gone), of_gone),
            ],
        )

    found = {alerts_pb2.AlertRule.Name(each.rule): each for each in await alerts(replica)}
    assert set(found) == {
        "ALERT_RULE_SCHEDULE_MISSED",
        "ALERT_RULE_UPSTREAM_DELETED",
        "ALERT_RULE_START_REFUSED",
    }
    told = found["ALERT_RULE_START_REFUSED"]
    assert (told.count, told.severity) == (2, alerts_pb2.ALERT_SEVERITY_CRITICAL)
    assert told.message == "the run that its schedule was to start was refused: parameters do not fit: n"
    assert dict(told.details) == {"reason": "INVALID_PARAMETERS", "scheduleId": missed.schedule_id}
    message = "ticks from 2026-01-01T00:00:00Z to 2026-01-01T05:00:00Z passed without a run"
    assert found["ALERT_RULE_SCHEDULE_MISSED"].message.startswith(message)


async def test_without_a_scheduler_nobody_follows_one(mesh: Cluster) -> None:
    alone, beside = (
        await mesh.replica(),
        await mesh.replica(scheduler_target="127.0.0.1:1", without=["execution.schedules"]),
    )
    assert "execution.schedules" not in followers(alone)
    assert "execution.schedules" in followers(beside)
