"""MetricsService."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import grpc
from headrace.execution.v1 import metrics_pb2, metrics_pb2_grpc
from headrace_chassis.errors import InvalidRequest, Problem
from headrace_chassis.identity import current_principal

from headrace_execution import convert_metrics
from headrace_execution.acceptance.definitions import DefinitionReader, Wanted
from headrace_execution.domain.cost import Tariff
from headrace_execution.domain.periods import BadPeriod, period_of
from headrace_execution.domain.reports import Report, report
from headrace_execution.domain.rollups import day_of
from headrace_execution.domain.run_cost import run_cost
from headrace_execution.store.port import Store
from headrace_execution.visibility import visible_definition, visible_run

Context = grpc.aio.ServicerContext[object, object]
_Request = metrics_pb2.GetPipelineMetricsRequest | metrics_pb2.GetPipelineCostRequest

METRICS_PERIOD = "7d"
COST_PERIOD = "30d"
"""What is shown where the request does not say."""


class MetricsServicer(metrics_pb2_grpc.MetricsServiceServicer):
    """Shows metrics and cost. `now` is the clock that decides which day is today."""

    def __init__(
        self,
        store: Store,
        reader: DefinitionReader,
        tariff: Tariff,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._reader = reader
        self._tariff = tariff
        self._now = now

    async def GetPipelineMetrics(
        self, request: metrics_pb2.GetPipelineMetricsRequest, context: Context
    ) -> metrics_pb2.PipelineMetrics:
        """See the contract."""
        now, before = await self._reports(request, METRICS_PERIOD)
        return convert_metrics.pipeline_metrics(request.id, self._tariff.currency, now, before)

    async def GetPipelineCost(
        self, request: metrics_pb2.GetPipelineCostRequest, context: Context
    ) -> metrics_pb2.PipelineCost:
        """See the contract."""
        now, before = await self._reports(request, COST_PERIOD)
        return convert_metrics.pipeline_cost(request.id, self._tariff.currency, now, before)

    async def GetRunCost(
        self, request: metrics_pb2.GetRunCostRequest, context: Context
    ) -> metrics_pb2.RunCost:
        """See the contract."""
        run = await visible_run(self._store, current_principal(), UUID(request.run_id))
        return convert_metrics.run_cost(run, self._tariff.currency, run_cost(run, self._tariff, self._now()))

    async def _reports(self, request: _Request, usual: str) -> tuple[Report, Report]:
        """The period that is asked for, and the one before."""
        try:
            period = period_of(
                request.period, request.from_text, request.to_text, usual=usual, today=day_of(self._now())
            )
        except BadPeriod as error:
            raise InvalidRequest([Problem(error.code, error.place, error.message)]) from None
        principal = current_principal()
        pipeline = UUID(request.id)
        wanted = Wanted(principal.tenant, pipeline, principal.acts_as)
        await visible_definition(self._reader, principal, wanted)
        days = await self._store.days(principal.tenant, pipeline, period.before.first, period.last)
        return report(period, days, self._tariff), report(period.before, days, self._tariff)
