"""Takes signals to runs: each once, in the transaction of what comes of it."""

from dataclasses import dataclass
from uuid import UUID

from headrace.execution.v1 import workflow_pb2
from headrace_chassis import faults
from headrace_chassis.errors import (
    InvalidRequest,
    NotFound,
    Problem,
)
from headrace_chassis.idempotency import IdempotencyKey
from headrace_definition.suggestions import nearest

from headrace_execution import convert_workflow
from headrace_execution.acceptance.signal_data import check_signal
from headrace_execution.clock import Moments
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.run import ReceivedSignal, Run
from headrace_execution.domain.waits import AlreadyCame, CameTooLate, receive, stage_for
from headrace_execution.errors import AlreadyFinished, SignalReceived, SignalTooLate
from headrace_execution.recording import Change, record
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody has said to a run."""

    run: UUID
    signal: str
    data: bytes
    """A JSON object, not checked yet."""
    sent_by: str
    key: IdempotencyKey | None = None


class SignalReceiver:
    """Writes what was said together with what follows: the end of the task that waited for it, and the stages
    that are ready then.
    """

    def __init__(self, store: Store, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._signals = signals
        self._moments = moments

    async def receive(self, said: Said) -> workflow_pb2.SignalWorkflowResponse:
        """The answer, once the signal is durable.

        Raises:
            NotFound, InvalidRequest, AlreadyFinished, SignalReceived, SignalTooLate, IdempotencyKeyReused,
            IdempotencyInFlight, Unavailable.
        """

        async def write(tx: Tx) -> tuple[workflow_pb2.SignalWorkflowResponse, list[Change]]:
            if said.key is not None:
                (lookup,) = await tx.answers.lookup([said.key])
                earlier = lookup.answered(workflow_pb2.SignalWorkflowResponse)
                if earlier is not None:
                    return earlier, []
            run = (await tx.runs.lock([said.run])).get(said.run)
            if run is None:
                raise NotFound("run", said.run)
            after, answer = _taken(self._moments.at(tx.now), run, said)
            changes = await record(tx, [(run, after)])
            if said.key is not None:
                await tx.answers.store([(said.key, answer.SerializeToString())])
            faults.point("execution.signal.before_commit")
            return answer, changes

        answer, changes = await self._store.run(write)
        faults.point("execution.signal.committed")
        self._signals.committed(changes)
        return answer


def _taken(moment: Moment, run: Run, said: Said) -> tuple[Run, workflow_pb2.SignalWorkflowResponse]:
    stage = stage_for(run, said.signal)
    wait = run.spec(stage).wait if stage is not None else None
    if stage is None or wait is None:
        raise _unknown(run, said.signal)
    if run.is_final:
        raise AlreadyFinished(run.id, run.state)
    checked = check_signal(wait, said.data)
    refusal = f"signal {said.signal} of {said.sent_by}: {', '.join(checked.unmet)}" if checked.unmet else None
    signal = ReceivedSignal(checked.data, moment.now, said.sent_by, run.id, refusal)
    try:
        after = receive(run, stage, signal, moment)
    except AlreadyCame as error:
        raise SignalReceived(said.signal, error.first.sent_by, error.first.received_at) from None
    except CameTooLate as error:
        raise SignalTooLate(said.signal, str(error)) from None
    return after, convert_workflow.signal_taken(after, after.stages[stage.position], wait, signal)


def _unknown(run: Run, signal: str) -> InvalidRequest:
    known = [spec.wait.signal for spec in run.recipe.stages if spec.wait is not None]
    names = f"it waits for {', '.join(known)}" if known else "it waits for none"
    message = f"the run waits for no signal of this name; {names}"
    return InvalidRequest(
        [Problem("UNKNOWN_SIGNAL", "signalName", message, suggestion=nearest(signal, known))]
    )
