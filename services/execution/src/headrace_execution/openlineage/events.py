"""The events of a run in OpenLineage's words (https://openlineage.io/spec/2-0-2/OpenLineage.json).

One START, and one of COMPLETE, FAIL and ABORT, for each run that has come so far. The job is the pipeline.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from headrace_definition.datasets import ConnectionPlace

from headrace_execution.domain.changes import failure_summary
from headrace_execution.domain.run import Run
from headrace_execution.domain.states import RunState
from headrace_execution.domain.triggers import TriggerKind
from headrace_execution.openlineage import facets
from headrace_execution.openlineage.datasets import DatasetTeller
from headrace_execution.openlineage.facets import Json
from headrace_execution.openlineage.plans import TracedPlan

EventType = Literal["START", "COMPLETE", "FAIL", "ABORT"]

_ENDS: Mapping[RunState, EventType] = {
    RunState.COMPLETED: "COMPLETE",
    RunState.FAILED: "FAIL",
    RunState.CANCELLED: "ABORT",
}


@dataclass(frozen=True, slots=True)
class Described:
    """How a run's pipeline is called, and where its connections lead."""

    namespace: str
    job: str
    places: Mapping[str, ConnectionPlace]


def start(run: Run, traced: TracedPlan, described: Described) -> Json:
    """That a run has started. Of one that never did it tells its acceptance: what ends has begun."""
    return _event("START", run.started_at or run.created_at, run, traced, described)


def end(run: Run, traced: TracedPlan, described: Described) -> Json:
    """How a run has ended. Raises ValueError for one that goes on."""
    if run.finished_at is None:
        raise ValueError(f"run {run.id} has not ended")
    return _event(_ENDS[run.state], run.finished_at, run, traced, described)


def _event(kind: EventType, when: datetime, run: Run, traced: TracedPlan, described: Described) -> Json:
    teller = DatasetTeller(run, traced, described.places, is_over=kind != "START")
    return {
        "eventType": kind,
        "eventTime": facets.instant(when),
        "run": {"runId": str(run.id), "facets": _run_facets(kind, run, described)},
        "job": {
            "namespace": described.namespace,
            "name": described.job,
            "facets": {
                "jobType": facets.job_type(),
                **({"sql": facets.sql(traced.sql)} if traced.sql is not None else {}),
            },
        },
        "inputs": teller.inputs(),
        "outputs": teller.outputs(),
        "producer": facets.PRODUCER,
        "schemaURL": facets.EVENT_SCHEMA,
    }


def _run_facets(kind: EventType, run: Run, described: Described) -> Json:
    told: Json = {"processing_engine": facets.processing_engine(), "tags": facets.tags(_tags(run))}
    if run.interval_start is not None:
        told["nominalTime"] = facets.nominal_time(run.interval_start, run.interval_end)
    elif run.trigger.kind in (TriggerKind.SCHEDULE, TriggerKind.BACKFILL, TriggerKind.DEPENDENCY):
        told["nominalTime"] = facets.nominal_time(run.logical_date, None)
    if (backfill := _backfill(run)) is not None:
        told["parent"] = facets.parent(backfill, described.namespace, f"{described.job}.backfill")
    if kind == "FAIL":
        told["errorMessage"] = facets.error_message(failure_summary(run) or "the run failed")
    return told


def _tags(run: Run) -> dict[str, str]:
    tags = {"trigger": str(run.trigger.kind), "engine": run.recipe.engine}
    if run.pipeline_version is not None:
        tags["pipelineVersion"] = str(run.pipeline_version)
    if run.retry_of is not None:
        tags["retryOf"] = str(run.retry_of)
    return tags


def _backfill(run: Run) -> str | None:
    """The backfill that a run fills an interval of: a run of its own, with an id of the same form."""
    if run.trigger.kind is not TriggerKind.BACKFILL or run.trigger.id is None:
        return None
    try:
        return str(UUID(run.trigger.id))
    except ValueError:
        return None
