"""Tells workers what to stop."""

from headrace.execution.v1 import workers_pb2
from headrace_chassis.agents import Agent

from headrace_execution.clock import Moments
from headrace_execution.domain.run import StopReason
from headrace_execution.signals import Signals
from headrace_execution.store.port import Lease, Store, Tx
from headrace_execution.workers.pool import Session, WorkerPool

_REASONS = {
    StopReason.CANCELLED: workers_pb2.CANCEL_REASON_CANCELLED,
    StopReason.TIMED_OUT: workers_pb2.CANCEL_REASON_TIMED_OUT,
}


class StopCourier(Agent):
    """Sends a cancel for each stage in the hands of this replica's workers that is to be stopped, once a
    stream.

    The wish is in the store first: whichever replica the worker is connected to finds it there.
    """

    name = "stop_courier"
    interval_seconds = 1.0

    def __init__(self, store: Store, pool: WorkerPool, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._pool = pool
        self._grace_ms = int(moments.patience.stop_grace.total_seconds() * 1000)
        signals.on_stops(self.wake)

    async def run_once(self) -> bool:
        """Sends what has not been sent yet."""
        workers = self._pool.ids()
        if not workers:
            return False

        async def read(tx: Tx) -> list[Lease]:
            return await tx.runs.stops(workers)

        for lease in await self._store.run(read):
            session = self._pool.get(lease.worker)
            if session is not None and lease.stop is not None:
                self._tell(session, lease, lease.stop)
        return False

    def _tell(self, session: Session, lease: Lease, reason: StopReason) -> None:
        told = (lease.assignment, lease.fence)
        if told in session.told_to_stop:
            return
        session.told_to_stop.add(told)
        ref = workers_pb2.AssignmentRef(assignment_id=str(lease.assignment), fence=lease.fence)
        cancel = workers_pb2.CancelAssignment(ref=ref, reason=_REASONS[reason], grace_ms=self._grace_ms)
        session.send(workers_pb2.ConnectResponse(cancel=cancel))
