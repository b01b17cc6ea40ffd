"""ExecutionInternalService: what other services ask."""

import json
from collections.abc import Sequence
from uuid import UUID

import grpc
from headrace.execution.v1 import internal_pb2, internal_pb2_grpc
from headrace_chassis.call_context import remaining_seconds
from headrace_chassis.errors import DeadlineExceeded, InvalidRequest, Problem
from headrace_chassis.identity import current_principal
from headrace_chassis.ids import uuid7

from headrace_execution import convert
from headrace_execution.acceptance.start_orders import StartOrders
from headrace_execution.acceptance.starting import Starter
from headrace_execution.cancels import RunCanceller
from headrace_execution.errors import PipelineHasLiveRuns
from headrace_execution.probing import Prober
from headrace_execution.store.port import Closing, Probe, ProbeKind, Store, Tx

PROBE_SECONDS = 30.0
CLOSE_SECONDS = 50.0
NAMED_RUNS = 20
CANCEL_BATCH = 200

_KINDS = {
    internal_pb2.PROBE_KIND_TEST: ProbeKind.TEST,
    internal_pb2.PROBE_KIND_TABLES: ProbeKind.TABLES,
}
Context = grpc.aio.ServicerContext[object, object]


class InternalServicer(internal_pb2_grpc.ExecutionInternalServiceServicer):
    """Probes connections, closes pipelines, checks parameters, starts and cancels runs."""

    def __init__(
        self,
        *,
        store: Store,
        prober: Prober,
        canceller: RunCanceller,
        orders: StartOrders,
        starter: Starter,
    ) -> None:
        self._store = store
        self._prober = prober
        self._canceller = canceller
        self._orders = orders
        self._starter = starter

    async def Probe(self, request: internal_pb2.ProbeRequest, context: Context) -> internal_pb2.ProbeResponse:
        """See the contract."""
        principal = current_principal()
        payload: dict[str, object] = {"connection": request.connection_id}
        if request.limit:
            payload["limit"] = request.limit
        if request.after:
            payload["after"] = request.after
        probe = Probe(
            id=uuid7(),
            tenant=principal.tenant,
            workspace=UUID(request.workspace_id),
            kind=_KINDS[request.kind],
            connections=(request.connection_id,),
            payload=json.dumps(payload).encode(),
            on_behalf_of=principal.acts_as,
        )
        answer = await self._prober.ask(probe, _at_most(PROBE_SECONDS))
        return internal_pb2.ProbeResponse(answer=answer)

    async def ClosePipeline(
        self, request: internal_pb2.ClosePipelineRequest, context: Context
    ) -> internal_pb2.ClosePipelineResponse:
        """See the contract."""
        tenant, pipeline = current_principal().tenant, UUID(request.pipeline_id)
        seconds = _at_most(CLOSE_SECONDS)

        async def close(tx: Tx) -> Closing:
            return await tx.pipelines.close(
                pipeline,
                tenant,
                attempt=request.attempt,
                despite_live=request.force,
                limit=NAMED_RUNS + 1,
            )

        closing = await self._store.run(close)
        live = closing.live
        if not closing.is_closed:
            raise PipelineHasLiveRuns(live[:NAMED_RUNS], more=len(live) > NAMED_RUNS)
        while live:
            live = await self._stop(tenant, pipeline, seconds)
        return internal_pb2.ClosePipelineResponse()

    async def StartRuns(
        self, request: internal_pb2.StartRunsRequest, context: Context
    ) -> internal_pb2.StartRunsResponse:
        """See the contract."""
        principal = current_principal()
        _check_starts(request.starts)
        keys = [start.key for start in request.starts]
        # What is decided needs no definition: its pipeline may be gone by now.
        decided = {item.key: item for item in await self._store.decisions(principal.tenant, keys)}
        fresh = {start.key: start for start in reversed(request.starts) if start.key not in decided}
        orders = await self._orders.make(principal, list(reversed(fresh.values())))
        made = await self._starter.start(principal.tenant, orders)
        decided |= {item.key: item for item in made}
        return internal_pb2.StartRunsResponse(decisions=[convert.decision(decided[key]) for key in keys])

    async def GetStarts(
        self, request: internal_pb2.GetStartsRequest, context: Context
    ) -> internal_pb2.GetStartsResponse:
        """See the contract."""
        tenant = current_principal().tenant
        decided = await self._store.decisions(tenant, list(request.keys))
        runs = await self._store.standings(tenant, [item.run for item in decided if item.run is not None])
        return internal_pb2.GetStartsResponse(
            starts=[convert.start(item, runs.get(item.run) if item.run else None) for item in decided]
        )

    async def CancelRuns(
        self, request: internal_pb2.CancelRunsRequest, context: Context
    ) -> internal_pb2.CancelRunsResponse:
        """See the contract."""
        tenant = current_principal().tenant
        asked = [UUID(run_id) for run_id in request.run_ids]
        # Those of other tenants are not even locked.
        runs = await self._store.standings(tenant, asked)
        live = [run.run for run in runs.values() if run.finished_at is None]
        if live:
            await self._canceller.cancel_all(live, request.reason or None)
            runs |= await self._store.standings(tenant, live)
        return internal_pb2.CancelRunsResponse(runs=[convert.standing(run) for run in runs.values()])

    async def CheckParameters(
        self, request: internal_pb2.CheckParametersRequest, context: Context
    ) -> internal_pb2.CheckParametersResponse:
        """See the contract."""
        await self._orders.check(current_principal(), UUID(request.pipeline_id), request.parameters)
        return internal_pb2.CheckParametersResponse()

    async def _stop(self, tenant: UUID, pipeline: UUID, seconds: float) -> list[UUID]:
        """Cancels live runs of a closed pipeline and waits for one of them; returns those that are live
        yet.
        """

        async def read(tx: Tx) -> list[UUID]:
            return await tx.runs.ids_of(pipeline, CANCEL_BATCH)

        live = await self._store.run(read)
        if live:
            await self._canceller.cancel_all(live, "its pipeline is being deleted")
            ended = await self._canceller.wait_for_end(tenant, live[0], min(seconds, _at_most(seconds)))
            if ended is not None and not ended.is_final:
                raise DeadlineExceeded("cancelling the pipeline's runs")
        return live


def _check_starts(starts: Sequence[internal_pb2.StartRun]) -> None:
    """Refuses what no rule of a field can say. Raises InvalidRequest."""
    problems: list[Problem] = []
    for index, start in enumerate(starts):
        path = f"starts[{index}]"
        if start.overlap and not start.trigger_id:
            message = "a trigger id was expected: the overlap rule is about runs of the same one"
            problems.append(Problem("INVALID_VALUE", f"{path}.triggerId", message))
        if start.HasField("interval_start") != start.HasField("interval_end"):
            message = "both ends of the interval were expected, or neither"
            problems.append(Problem("INVALID_VALUE", f"{path}.intervalEnd", message))
        for name, text in (
            ("key", start.key),
            ("triggerId", start.trigger_id),
            ("triggeredBy", start.triggered_by),
        ):
            if "\0" in text:
                problems.append(Problem("INVALID_VALUE", f"{path}.{name}", "it holds a NUL character"))
    if problems:
        raise InvalidRequest(problems)


def _at_most(seconds: float) -> float:
    left = remaining_seconds()
    return seconds if left is None else min(seconds, max(left - 0.5, 0.1))
