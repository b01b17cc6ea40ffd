"""What the scheduler asks of execution: to start runs, each once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import grpc
import structlog
from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import internal_pb2, internal_pb2_grpc, runs_pb2
from headrace_chassis.channels import failure_of, service_metadata
from headrace_chassis.errors import HeadraceError, InvalidParameters
from headrace_chassis.identity import Principal, ServiceTokens
from headrace_chassis.messages import timestamp

from headrace_scheduler.domain.schedules import Schedule

_OVERLAPS = {
    None: internal_pb2.OVERLAP_UNSPECIFIED,
    "SKIP": internal_pb2.OVERLAP_SKIP,
    "QUEUE": internal_pb2.OVERLAP_QUEUE,
    "CANCEL_RUNNING": internal_pb2.OVERLAP_CANCEL_RUNNING,
}
_OUTCOMES = {
    internal_pb2.START_OUTCOME_STARTED: "STARTED",
    internal_pb2.START_OUTCOME_HELD: "HELD",
    internal_pb2.START_OUTCOME_SKIPPED: "SKIPPED",
    internal_pb2.START_OUTCOME_REFUSED: "REFUSED",
}


_OURS_TO_MEND = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION"})
"""gRPC codes of a call that repeating cannot mend: something in it is wrong."""

_AS_SET = frozenset({"NOT_FOUND", "PIPELINE_INACTIVE", "PIPELINE_DELETING", "CONCURRENCY_LIMIT"})
"""Refusals that somebody has asked for, by deleting a pipeline, turning it off or limiting its runs."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Start:
    """A run to start. Without a logical time it is for the moment at which it is accepted."""

    key: str
    pipeline_id: UUID
    trigger: "runs_pb2.TriggerKind.ValueType"
    trigger_id: str
    triggered_by: str
    parameters: str
    logical_date: datetime | None = None
    interval_start: datetime | None = None
    overlap: str | None = None
    queue_limit: int = 0
    priority: "runs_pb2.Priority.ValueType" = runs_pb2.PRIORITY_UNSPECIFIED


@dataclass(frozen=True)
class Decided:
    """What execution decided of a start, once and for all."""

    key: str
    outcome: str
    """STARTED, HELD (accepted, and waits), SKIPPED or REFUSED."""
    run_id: UUID | None
    reason: str | None
    message: str | None

    @property
    def is_run(self) -> bool:
        """Whether there is a run."""
        return self.outcome in ("STARTED", "HELD")

    @property
    def is_trouble(self) -> bool:
        """Whether somebody has to mend something before such a start becomes a run."""
        return self.outcome == "REFUSED" and self.reason not in _AS_SET


class Execution:
    """The execution service, called with tokens of our own."""

    def __init__(self, channel: grpc.aio.Channel, tokens: ServiceTokens, start_seconds: float) -> None:
        self.start_seconds = start_seconds
        self._stub = internal_pb2_grpc.ExecutionInternalServiceStub(channel)
        self._tokens = tokens

    async def start_runs(self, tenant: UUID, starts: Sequence[Start]) -> Sequence[Decided]:
        """What is decided of the starts, in their order. Asking again answers the same.

        Raises:
            HeadraceError: nothing is known to be decided; Unavailable where execution is away.
        """
        request = internal_pb2.StartRunsRequest(starts=map(_message, starts))
        try:
            answer = await self._stub.StartRuns(
                request, metadata=service_metadata(self._tokens, tenant), timeout=self.start_seconds
            )
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        return [_decided(decision) for decision in answer.decisions]

    async def start_each(self, tenant: UUID, starts: Sequence[Start]) -> Sequence[Decided]:
        """As `start_runs`; but a start that makes the whole call one that repeating cannot mend is REFUSED,
        and is told apart from the others by asking for halves of them.

        Raises:
            HeadraceError: what passes by itself, so that the same may be asked again later.
        """
        try:
            return await self.start_runs(tenant, starts)
        except HeadraceError as error:
            if error.entry.code.name not in _OURS_TO_MEND:
                raise
            if len(starts) == 1:
                _log.error("execution takes no start of this key", key=starts[0].key, error=error.message)
                return [Decided(starts[0].key, "REFUSED", None, error.code, error.message)]
        middle = len(starts) // 2
        first = await self.start_each(tenant, starts[:middle])
        return [*first, *await self.start_each(tenant, starts[middle:])]

    async def check_parameters(
        self, tenant: UUID, pipeline_id: UUID, parameters: str, *, field: str = "parameters"
    ) -> None:
        """Checks values against what a pipeline declares now, so that not each start has to be refused for
        them; `field` is the one of the request that they came in.

        Raises:
            HeadraceError: with INVALID_PARAMETERS, naming each; Unavailable where execution is away.
        """
        request = internal_pb2.CheckParametersRequest(
            pipeline_id=str(pipeline_id), parameters=parameters.encode()
        )
        try:
            await self._stub.CheckParameters(request, metadata=service_metadata(self._tokens, tenant))
        except grpc.aio.AioRpcError as error:
            refused = failure_of(error)
            if refused.code != "INVALID_PARAMETERS":
                raise refused from None
            named = [replace(each, path=_within(field, each.path)) for each in refused.problems]
            raise InvalidParameters(named) from None

    async def trigger(self, principal: Principal, schedule: Schedule, key: str) -> Decided:
        """Starts a run of a schedule that somebody asks for now; the same key starts one.

        Raises:
            HeadraceError: there is no run, with the reason that execution gives.
        """
        start = Start(
            key=f"trigger:{schedule.id}:{key}",
            pipeline_id=schedule.pipeline_id,
            trigger=runs_pb2.TRIGGER_KIND_MANUAL,
            trigger_id=str(schedule.id),
            triggered_by=principal.acts_as,
            parameters=schedule.terms.parameters,
        )
        (decided,) = await self.start_runs(principal.tenant, [start])
        if decided.run_id is None:
            raise NotStarted(decided.reason, decided.message)
        return decided


class NotStarted(HeadraceError):  # noqa: N818 - it names what happened
    """Execution started no run; the reason is its own."""

    def __init__(self, reason: str | None, message: str | None) -> None:
        name = f"REASON_{reason}"
        known = name in reasons_pb2.Reason.DESCRIPTOR.values_by_name
        super().__init__(
            message or "the run was not started",
            reason=reasons_pb2.Reason.Value(name) if known else reasons_pb2.REASON_CONCURRENCY_LIMIT,
        )


def _within(field: str, path: str) -> str:
    return field + path.removeprefix("parameters")


def _message(start: Start) -> internal_pb2.StartRun:
    return internal_pb2.StartRun(
        key=start.key,
        pipeline_id=str(start.pipeline_id),
        trigger=start.trigger,
        trigger_id=start.trigger_id,
        triggered_by=start.triggered_by,
        logical_date=timestamp(start.logical_date),
        interval_start=timestamp(start.interval_start),
        interval_end=timestamp(start.logical_date if start.interval_start else None),
        parameters=b"" if start.parameters == "{}" else start.parameters.encode(),
        overlap=_OVERLAPS[start.overlap],
        queue_limit=start.queue_limit,
        priority=start.priority,
    )


def _decided(decision: internal_pb2.StartDecision) -> Decided:
    return Decided(
        key=decision.key,
        outcome=_OUTCOMES[decision.outcome],
        run_id=UUID(decision.run_id) if decision.HasField("run_id") else None,
        reason=decision.reason or None,
        message=decision.message or None,
    )
