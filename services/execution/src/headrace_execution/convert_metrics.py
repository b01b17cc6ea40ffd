"""Metrics and cost in the contract's words. No rule lives here."""

from decimal import Decimal

from headrace.execution.v1 import metrics_pb2, runs_pb2

from headrace_execution.convert import run_state
from headrace_execution.domain.cost import Cost, Rates, digits, per_run
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.periods import Trend, trend
from headrace_execution.domain.reports import Report
from headrace_execution.domain.rollups import Totals
from headrace_execution.domain.run import Run
from headrace_execution.domain.run_cost import RunCost, StageCost

_TRENDS = {known: metrics_pb2.Trend.Value(f"TREND_{known}") for known in Trend}


def pipeline_metrics(
    pipeline: str, currency: str, now: Report, before: Report
) -> metrics_pb2.PipelineMetrics:
    """How a pipeline has done over a period, and over the one before."""
    return metrics_pb2.PipelineMetrics(
        pipeline_id=pipeline,
        period=str(now.period),
        from_text=str(now.period.first),
        to_text=str(now.period.last),
        currency=currency,
        metrics=_period(now),
        previous=_period(before),
        trend=_trends(now, before),
        history=[_day(day) for day in now.days],
    )


def pipeline_cost(pipeline: str, currency: str, now: Report, before: Report) -> metrics_pb2.PipelineCost:
    """What the runs of a pipeline cost that ended in a period."""
    average = per_run(now.cost.total, now.totals.runs)
    return metrics_pb2.PipelineCost(
        pipeline_id=pipeline,
        period=str(now.period),
        from_text=str(now.period.first),
        to_text=str(now.period.last),
        currency=currency,
        total_cost=digits(now.cost.total),
        breakdown=_breakdown(now.cost),
        run_count=now.totals.runs,
        cost_per_run=None if average is None else digits(average),
        previous_total_cost=digits(before.cost.total),
        trend=_trend(_money(now), _money(before)),
        history=[
            metrics_pb2.DayCost(
                date=str(day.period.first),
                run_count=day.totals.runs,
                total_cost=digits(day.cost.total),
                breakdown=_breakdown(day.cost),
            )
            for day in now.days
        ],
    )


def run_cost(run: Run, currency: str, found: RunCost) -> metrics_pb2.RunCost:
    """What a run costs."""
    return metrics_pb2.RunCost(
        run_id=str(run.id),
        pipeline_id=str(run.pipeline),
        status=run_state(run.state),
        estimated=not run.is_final,
        currency=currency,
        total_cost=digits(found.cost.total),
        breakdown=_breakdown(found.cost),
        rates=_rates(found.rates),
        compute_seconds=_seconds(found.figures),
        bytes_read=found.figures.bytes_read,
        bytes_written=found.figures.bytes_written,
        stages=[_stage(stage) for stage in found.stages],
    )


def _period(report: Report) -> metrics_pb2.PeriodMetrics:
    totals, durations, figures = report.totals, report.totals.durations, report.totals.figures
    return metrics_pb2.PeriodMetrics(
        run_count=totals.runs,
        completed=totals.completed,
        failed=totals.failed,
        cancelled=totals.cancelled,
        with_warnings=totals.warned,
        success_rate=totals.success_rate,
        avg_duration_ms=durations.average,
        min_duration_ms=durations.min if durations.count else None,
        max_duration_ms=durations.max if durations.count else None,
        p50_duration_ms=durations.percentile(0.5),
        p95_duration_ms=durations.percentile(0.95),
        p99_duration_ms=durations.percentile(0.99),
        rows_read=figures.rows_read,
        rows_written=figures.rows_written,
        bytes_read=figures.bytes_read,
        bytes_written=figures.bytes_written,
        compute_seconds=_seconds(figures),
        total_cost=digits(report.cost.total),
    )


def _trends(now: Report, before: Report) -> metrics_pb2.MetricsTrend:
    mine, theirs = now.totals, before.totals
    return metrics_pb2.MetricsTrend(
        run_count=_trend(_some(mine, mine.runs), _some(theirs, theirs.runs)),
        success_rate=_trend(mine.success_rate, theirs.success_rate),
        avg_duration_ms=_trend(mine.durations.average, theirs.durations.average),
        rows_written=_trend(
            _some(mine, mine.figures.rows_written), _some(theirs, theirs.figures.rows_written)
        ),
        total_cost=_trend(_money(now), _money(before)),
    )


def _day(day: Report) -> metrics_pb2.DayMetrics:
    totals = day.totals
    return metrics_pb2.DayMetrics(
        date=str(day.period.first),
        status=runs_pb2.RUN_STATE_UNSPECIFIED if totals.last_state is None else run_state(totals.last_state),
        run_count=totals.runs,
        completed=totals.completed,
        failed=totals.failed,
        cancelled=totals.cancelled,
        duration_ms=totals.durations.average,
        rows=totals.figures.rows_written,
        bytes=totals.figures.bytes_written,
        cost=digits(day.cost.total),
    )


def _stage(stage: StageCost) -> metrics_pb2.StageCost:
    return metrics_pb2.StageCost(
        stage=stage.key,
        attempts=stage.attempts,
        compute_seconds=_seconds(stage.figures),
        total_cost=digits(stage.cost.total),
        breakdown=_breakdown(stage.cost),
        tasks=[
            metrics_pb2.TaskCost(
                task=task.spec.key,
                kind=task.spec.kind,
                bytes_read=task.figures.bytes_read,
                bytes_written=task.figures.bytes_written,
                storage=digits(task.cost.storage),
                network=digits(task.cost.network),
            )
            for task in stage.tasks
        ],
    )


def _breakdown(cost: Cost) -> metrics_pb2.CostBreakdown:
    return metrics_pb2.CostBreakdown(
        compute=digits(cost.compute), storage=digits(cost.storage), network=digits(cost.network)
    )


def _rates(rates: Rates) -> metrics_pb2.CostRates:
    return metrics_pb2.CostRates(
        compute_second=digits(rates.compute_second),
        storage_gb=digits(rates.storage_gb),
        network_gb=digits(rates.network_gb),
    )


def _seconds(figures: Figures) -> float:
    return figures.slot_us / 1_000_000


def _trend(now: float | Decimal | None, before: float | Decimal | None) -> "metrics_pb2.Trend.ValueType":
    found = trend(now, before)
    return metrics_pb2.TREND_UNSPECIFIED if found is None else _TRENDS[found]


def _some(totals: Totals, figure: int) -> int | None:
    """A figure of a period in which runs ended; one without any has none."""
    return figure if totals.runs else None


def _money(report: Report) -> Decimal | None:
    return report.cost.total if report.totals.runs else None
