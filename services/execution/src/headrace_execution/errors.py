"""The errors that only execution raises."""
# ruff: noqa: N818 - they name facts, as the errors of the chassis do

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import HeadraceError


class EngineNotAvailable(HeadraceError):
    """The engine that the plan needs is not part of this installation."""

    reason = reasons_pb2.REASON_ENGINE_NOT_AVAILABLE

    def __init__(self, engine: str, why: str) -> None:
        super().__init__(
            f"engine {engine} is not part of this installation ({why}); JDBC is",
            metadata={"engine": engine},
        )


class AtConcurrencyLimit(HeadraceError):
    """As many runs of the pipeline are live as it allows, and it does not queue."""

    reason = reasons_pb2.REASON_CONCURRENCY_LIMIT

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"as many runs of the pipeline are live as it allows ({limit}), and it does not queue",
            metadata={"limit": str(limit)},
        )


class PipelineClosed(HeadraceError):
    """The pipeline is being deleted."""

    reason = reasons_pb2.REASON_PIPELINE_DELETING

    def __init__(self, pipeline: UUID) -> None:
        super().__init__(f"pipeline {pipeline} is being deleted", metadata={"pipelineId": str(pipeline)})


class PipelineHasLiveRuns(HeadraceError):
    """The pipeline has live runs."""

    reason = reasons_pb2.REASON_PIPELINE_HAS_LIVE_RUNS

    def __init__(self, runs: Sequence[UUID], *, more: bool) -> None:
        named = ", ".join(str(run) for run in runs)
        told = f"has live runs: {named}{' and more' if more else ''}" if runs else "had live runs when asked"
        super().__init__(f"the pipeline {told}", metadata={"runIds": named})


class AlreadyFinished(HeadraceError):
    """The run has reached another final state."""

    reason = reasons_pb2.REASON_RUN_FINISHED

    def __init__(self, run: UUID, state: str) -> None:
        super().__init__(f"run {run} has ended already: it is {state}", metadata={"status": state})


class NotRetryable(HeadraceError):
    """The run cannot be tried again."""

    reason = reasons_pb2.REASON_NOT_RETRYABLE

    @classmethod
    def in_state(cls, run: UUID, state: str) -> "NotRetryable":
        """It has neither failed nor was it cancelled."""
        return cls(
            f"run {run} is {state}: only a run that has FAILED or was CANCELLED is tried again",
            metadata={"status": state},
        )

    @classmethod
    def while_live(cls, run: UUID, other: UUID) -> "NotRetryable":
        """Another run does it."""
        return cls(f"run {other} tries run {run} again already", metadata={"runId": str(other)})


class SignalReceived(HeadraceError):
    """The signal has come already."""

    reason = reasons_pb2.REASON_SIGNAL_RECEIVED

    def __init__(self, signal: str, sent_by: str, received_at: datetime) -> None:
        at = received_at.isoformat(timespec="seconds")
        super().__init__(
            f"signal {signal} came from {sent_by} at {at}; the first one counts",
            metadata={"signalName": signal, "sentBy": sent_by},
        )


class SignalTooLate(HeadraceError):
    """The task that the signal is for has ended without it, or its deadline has passed."""

    reason = reasons_pb2.REASON_SIGNAL_TOO_LATE

    def __init__(self, signal: str, why: str) -> None:
        super().__init__(f"signal {signal} comes too late: {why}", metadata={"signalName": signal})


class LeaseLost(HeadraceError):
    """A lease or fence is no longer valid."""

    reason = reasons_pb2.REASON_LEASE_LOST

    def __init__(self) -> None:
        super().__init__("the assignment is not leased to this worker under this fence")


class NoWorker(HeadraceError):
    """No worker took the work in time."""

    reason = reasons_pb2.REASON_NO_WORKER

    def __init__(self) -> None:
        # All the time that the caller had was waited for a worker: its channel must not begin anew.
        super().__init__(
            "no worker took the work in time; is one connected?", retry_after=2.0, may_repeat=False
        )


class OutputNotLanded(HeadraceError):
    """The run has not landed the output that is asked for."""

    reason = reasons_pb2.REASON_OUTPUT_NOT_LANDED

    def __init__(self, run: UUID, sink: str, state: str, *, may_come: bool) -> None:
        told = "has not landed it yet" if may_come else "ended without landing it"
        super().__init__(
            f"output {sink} of run {run}: the run is {state} and {told}", metadata={"status": state}
        )


class AlertAlreadyResolved(HeadraceError):
    """The alert is resolved, so that nobody can take it on any more."""

    reason = reasons_pb2.REASON_ALERT_RESOLVED

    def __init__(self, alert: UUID) -> None:
        super().__init__(f"alert {alert} is resolved already")
