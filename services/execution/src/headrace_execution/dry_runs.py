"""Tells what a run would do: has a worker look at the whole plan, and keeps nothing."""

import json
from uuid import UUID

from google.protobuf import json_format
from headrace.execution.v1 import dry_runs_pb2, runs_pb2, workers_pb2
from headrace_chassis.call_context import remaining_seconds
from headrace_chassis.ids import uuid7
from headrace_chassis.slots import StreamSlots
from headrace_definition.plan import Plan

from headrace_execution import convert
from headrace_execution.domain.lifecycle import Order
from headrace_execution.probing import Prober
from headrace_execution.store.port import Probe, ProbeKind, Store, Tx

LONGEST_SECONDS = 30.0
"""How long the answer is waited for, where the caller has that much time."""
SPARE_SECONDS = 2.0
"""How much earlier the worker ends, so that what it has found by then arrives."""


class DryRunner:
    """Asks a worker what would come of an order."""

    def __init__(self, store: Store, prober: Prober, slots: StreamSlots) -> None:
        """`slots` bounds how many are under way at once: each keeps a worker's slot for some seconds."""
        self._store = store
        self._prober = prober
        self._slots = slots

    async def tell(self, order: Order, plan: Plan) -> runs_pb2.RunResponse:
        """The answer to a dry run.

        Raises:
            NoWorker: when no worker took the question in time.
            DeadlineExceeded: when one did, and has not answered.
            HeadraceError: RATE_LIMITED, UNAVAILABLE where as many are under way as may be.
        """
        give_back = self._slots.take((order.tenant, order.triggered_by))
        try:
            return await self._tell(order, plan)
        finally:
            give_back()

    async def _tell(self, order: Order, plan: Plan) -> runs_pb2.RunResponse:
        left = remaining_seconds()
        seconds = LONGEST_SECONDS if left is None else min(LONGEST_SECONDS, max(left - 0.5, 0.1))
        question = await self._question(order, plan, max(seconds - SPARE_SECONDS, 0.1))
        probe = Probe(
            id=uuid7(),
            tenant=order.tenant,
            workspace=order.workspace,
            kind=ProbeKind.DRY_RUN,
            connections=plan.connections,
            payload=json_format.MessageToJson(question, indent=None).encode(),
            on_behalf_of=order.triggered_by,
        )
        report = _report(await self._prober.ask(probe, seconds))
        report.engine_reason, report.parameters = order.recipe.engine_reason, order.parameters
        report.stages.extend(
            dry_runs_pb2.DryRunStage(key=stage.key, tasks=stage.tasks, depends_on=stage.depends_on)
            for stage in plan.stages
        )
        report.ready = not (
            report.HasField("error")
            or any(connection.HasField("error") for connection in report.connections)
            or any(task.HasField("error") for task in report.tasks)
        )
        return convert.dry_run(order, report)

    async def _question(self, order: Order, plan: Plan, seconds: float) -> workers_pb2.Assignment:
        pairs = [pair for stage in order.recipe.stages for pair in stage.cursors]
        loads = {(order.pipeline, sink) for sink, _ in pairs}
        question = workers_pb2.Assignment(
            pipeline_id=str(order.pipeline),
            # A text may name the run; there is none.
            run_id=str(UUID(int=0)),
            payload=plan.to_json(),
            parameters=order.parameters,
            variables=order.variables or b"",
            full_refresh=order.full_refresh,
            timeout_ms=int(seconds * 1000),
            traceparent=order.traceparent,
        )

        async def read(tx: Tx) -> None:
            found = await tx.pipelines.cursors(loads) if loads else {}
            values = {(sink, c.source): c.value for (_, sink), held in found.items() for c in held}
            question.cursors.extend(
                workers_pb2.Cursor(sink=sink, source=source, value=values.get((sink, source), b""))
                for sink, source in pairs
            )
            question.logical_date.FromDatetime(tx.now)

        await self._store.run(read)
        return question


def _report(answer: bytes) -> dry_runs_pb2.DryRun:
    """What the worker found, or why it found nothing."""
    told = json.loads(answer)
    failure = told.get("error") if "success" in told else None
    if failure is None:
        report: dry_runs_pb2.DryRun = json_format.ParseDict(
            told, dry_runs_pb2.DryRun(), ignore_unknown_fields=True
        )
        return report
    error = dry_runs_pb2.DryRunError(
        code=failure["code"], message=failure["message"], transient=failure["class"] == "TRANSIENT"
    )
    return dry_runs_pb2.DryRun(error=error)
