"""RunService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from uuid import UUID

import grpc
from headrace.execution.v1 import runs_pb2, runs_pb2_grpc
from headrace_chassis.call_context import remaining_seconds
from headrace_chassis.errors import NotFound, WorkspaceForbidden
from headrace_chassis.idempotency import IdempotencyKey, Standing, current_key
from headrace_chassis.identity import current_principal
from headrace_chassis.ids import uuid7
from headrace_chassis.observability.tracing import current_traceparent
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors

from headrace_execution import convert
from headrace_execution.acceptance.acceptor import Acceptor, Asked
from headrace_execution.acceptance.compiling import Compiler
from headrace_execution.acceptance.definitions import DefinitionReader, Wanted
from headrace_execution.acceptance.parameters import check_parameters
from headrace_execution.acceptance.preparing import Preparer
from headrace_execution.acceptance.variables import VariableChecker
from headrace_execution.cancels import RunCanceller
from headrace_execution.domain.lifecycle import Order, RunFinished
from headrace_execution.domain.retrying import RETRYABLE, retry_order
from headrace_execution.domain.run import Run
from headrace_execution.domain.states import RunState
from headrace_execution.dry_runs import DryRunner
from headrace_execution.errors import AlreadyFinished, NotRetryable
from headrace_execution.remarks import check_remark
from headrace_execution.servicers.places import place_of
from headrace_execution.store.port import RunFilter, RunSummary, Store, Tx
from headrace_execution.visibility import visible_definition, visible_run
from headrace_execution.watching.watcher import RunWatcher

CANCEL_WAIT_SECONDS = 10.0
Context = grpc.aio.ServicerContext[object, object]


class RunServicer(runs_pb2_grpc.RunServiceServicer):
    """Accepts, shows and cancels runs."""

    def __init__(
        self,
        *,
        store: Store,
        reader: DefinitionReader,
        preparer: Preparer,
        variables: VariableChecker,
        compiler: Compiler,
        acceptor: Acceptor,
        dry_runner: DryRunner,
        canceller: RunCanceller,
        watcher: RunWatcher,
        cursors: Cursors,
    ) -> None:
        self._store = store
        self._reader = reader
        self._preparer = preparer
        self._variables = variables
        self._compiler = compiler
        self._acceptor = acceptor
        self._dry_runner = dry_runner
        self._canceller = canceller
        self._watcher = watcher
        self._cursors = cursors

    async def RunPipeline(
        self, request: runs_pb2.RunPipelineRequest, context: Context
    ) -> runs_pb2.RunResponse:
        """See the contract."""
        principal = current_principal()
        label = request.triggered_by if request.HasField("triggered_by") else None
        check_remark("triggeredBy", label)
        pipeline = UUID(request.id)
        wanted = Wanted(principal.tenant, pipeline, principal.acts_as)
        definition = await visible_definition(self._reader, principal, wanted)
        if request.HasField("yaml_definition"):
            prepared = await self._preparer.text(request.yaml_definition, definition, wanted)
        else:
            prepared = await self._preparer.latest(definition, wanted)
        recipe = self._compiler.recipe(prepared, definition, convert.engine_of(request.engine))
        plan, workspace = prepared.compiled.plan, UUID(definition.workspace_id)
        variables = await self._variables.check(
            plan,
            request.variables,
            tenant=principal.tenant,
            workspace=workspace,
            on_behalf_of=principal.acts_as,
        )
        order = Order(
            run_id=uuid7(),
            stage_ids=tuple(uuid7() for _ in recipe.stages),
            tenant=principal.tenant,
            workspace=workspace,
            pipeline=pipeline,
            pipeline_version=prepared.version,
            recipe=recipe,
            parameters=check_parameters(plan.parameters, request.parameters),
            variables=variables,
            triggered_by=principal.acts_as,
            trigger_label=label,
            priority=convert.priority_of(request.priority) or prepared.priority,
            full_refresh=request.full_refresh,
            traceparent=current_traceparent(),
        )
        if request.dry_run:
            return await self._dry_runner.tell(order, plan)
        return await self._acceptor.accept(Asked(order, current_key()))

    async def GetRunStatus(
        self, request: runs_pb2.GetRunStatusRequest, context: Context
    ) -> runs_pb2.RunStatusResponse:
        """See the contract."""
        run = await visible_run(self._store, current_principal(), UUID(request.run_id))
        return convert.status(run, datetime.now(UTC))

    async def WatchRun(
        self, request: runs_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[runs_pb2.RunStatusResponse]:
        """See the contract."""
        async with aclosing(self._watcher.follow(current_principal(), UUID(request.run_id))) as states:
            async for run in states:
                yield convert.status(run, datetime.now(UTC))

    async def CancelRun(
        self, request: runs_pb2.CancelRunRequest, context: Context
    ) -> runs_pb2.CancelRunResponse:
        """See the contract."""
        principal = current_principal()
        reason = request.reason if request.HasField("reason") else None
        check_remark("reason", reason)
        key = current_key()
        earlier = await self._answered(key) if key is not None else None
        if earlier is not None:
            return earlier
        run_id = (await visible_run(self._store, principal, UUID(request.run_id))).id
        try:
            run = await self._canceller.request(run_id, reason)
        except RunFinished as error:
            raise AlreadyFinished(error.run_id, error.state) from None
        if run is not None and not run.is_final:
            run = await self._canceller.wait_for_end(principal.tenant, run_id, _cancel_wait())
        if run is None:
            raise NotFound("run", run_id)
        answer = _cancelled(run)
        if key is not None:
            await self._keep(key, answer)
        return answer

    async def RetryRun(self, request: runs_pb2.RetryRunRequest, context: Context) -> runs_pb2.RunResponse:
        """See the contract."""
        principal = current_principal()
        label = request.triggered_by if request.HasField("triggered_by") else None
        check_remark("triggeredBy", label)
        run = await visible_run(self._store, principal, UUID(request.run_id))
        if run.state not in RETRYABLE:
            raise NotRetryable.in_state(run.id, run.state)
        order = retry_order(
            run,
            run_id=uuid7(),
            stage_ids=[uuid7() for _ in run.stages],
            triggered_by=principal.acts_as,
            trigger_label=label,
            priority=convert.priority_of(request.priority),
            traceparent=current_traceparent(),
        )
        return await self._acceptor.accept(Asked(order, current_key()))

    async def ListRuns(
        self, request: runs_pb2.ListRunsRequest, context: Context
    ) -> runs_pb2.ListRunsResponse:
        """See the contract."""
        principal = current_principal()
        workspaces = principal.workspaces
        if request.workspace_id:
            workspace = UUID(request.workspace_id)
            if not principal.may_use(workspace):
                raise WorkspaceForbidden(workspace)
            workspaces = frozenset({workspace})
        pipeline = UUID(request.pipeline_id) if request.pipeline_id else None
        narrow = RunFilter(
            principal.tenant,
            workspaces,
            pipeline,
            convert.run_state_of(request.status),
            request.trigger_id or None,
        )
        return await self._page("runs", narrow, request)

    async def ListPipelineRuns(
        self, request: runs_pb2.ListPipelineRunsRequest, context: Context
    ) -> runs_pb2.ListRunsResponse:
        """See the contract."""
        principal = current_principal()
        wanted = Wanted(principal.tenant, UUID(request.id), principal.acts_as)
        await visible_definition(self._reader, principal, wanted)
        state = convert.run_state_of(request.status)
        narrow = RunFilter(principal.tenant, principal.workspaces, UUID(request.id), state)
        return await self._page(f"runs of {request.id}", narrow, request)

    async def _page(
        self,
        name: str,
        narrow: RunFilter,
        request: runs_pb2.ListRunsRequest | runs_pb2.ListPipelineRunsRequest,
    ) -> runs_pb2.ListRunsResponse:
        pages: Pages[RunSummary] = Pages(
            self._cursors, name, (datetime, UUID), lambda it: (it.created_at, it.id)
        )
        limit, before = pages.begin(request, request.offset)
        after = place_of(before)
        found = await self._store.list_runs(narrow, limit=limit + 1, offset=request.offset, after=after)
        total = await self._store.count_runs(narrow) if request.include_total else None
        page, meta = pages.end(found, limit, total)
        return runs_pb2.ListRunsResponse(data=map(convert.summary, page), meta=meta)

    async def _answered(self, key: IdempotencyKey) -> runs_pb2.CancelRunResponse | None:
        async def look(tx: Tx) -> runs_pb2.CancelRunResponse | None:
            (lookup,) = await tx.answers.lookup([key])
            return lookup.answered(runs_pb2.CancelRunResponse)

        return await self._store.run(look)

    async def _keep(self, key: IdempotencyKey, answer: runs_pb2.CancelRunResponse) -> None:
        async def store(tx: Tx) -> None:
            (lookup,) = await tx.answers.lookup([key])
            if lookup.standing is Standing.NEW:
                await tx.answers.store([(key, answer.SerializeToString())])

        await self._store.run(store)


def _cancelled(run: Run) -> runs_pb2.CancelRunResponse:
    messages = {
        RunState.CANCELLED: "the run is cancelled",
        RunState.COMPLETED: "the run had completed before it could be stopped",
        RunState.FAILED: "the run had failed before it could be stopped",
    }
    return runs_pb2.CancelRunResponse(
        run_id=str(run.id),
        status=convert.run_state(run.state),
        message=messages.get(run.state, "the run is being cancelled; something has not stopped yet"),
        cancel_requested=not run.is_final,
    )


def _cancel_wait() -> float:
    left = remaining_seconds()
    # A little is left for the answer itself.
    return CANCEL_WAIT_SECONDS if left is None else min(CANCEL_WAIT_SECONDS, max(left - 0.5, 0.0))
