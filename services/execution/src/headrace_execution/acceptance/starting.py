"""Decides starts that other services ask for: each once, in one transaction with the run that comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from headrace_chassis import faults
from headrace_chassis.errors import Unavailable

from headrace_execution.acceptance.placing import Placed, place
from headrace_execution.clock import Moments
from headrace_execution.domain.holding import ConcurrencyLimit, must_wait
from headrace_execution.domain.lifecycle import Order, accept, request_cancel
from headrace_execution.domain.moment import Moment
from headrace_execution.domain.run import Run
from headrace_execution.domain.starts import NAMED_PEERS, Decision, Refusal, StartOutcome
from headrace_execution.domain.triggers import Overlap, Peer, Turn, turn
from headrace_execution.errors import AtConcurrencyLimit, PipelineClosed
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, TriggerKey, Tx
from headrace_execution.workers.handouts import send
from headrace_execution.workers.pool import Session, WorkerPool

LARGEST = 200
"""How many starts share a transaction: each may take two advisory locks, of which PostgreSQL has a few
thousand."""
TRIES = 5
CANCEL_REASON = "the next run of its trigger cancels it"

_MESSAGES = {
    Turn.OVERLAP_RUNNING: "an earlier run of the trigger is live",
    Turn.OVERLAP_CANCELLING: "an earlier run of the trigger is being cancelled",
    Turn.QUEUE_FULL: "as many runs of the trigger are held as it allows",
}


@dataclass(frozen=True, slots=True)
class Start:
    """A start that is to be decided: the order of its run, or why there can be none."""

    key: str
    order: Order | Refusal
    queue_limit: int = 0

    @property
    def trigger(self) -> TriggerKey | None:
        """The trigger whose live runs its overlap rule looks at, if it has a rule."""
        if isinstance(self.order, Refusal) or self.order.trigger.overlap is None:
            return None
        return self.order.pipeline, self.order.trigger.id or ""

    @property
    def cancels(self) -> bool:
        """Whether it cancels what is live."""
        return isinstance(self.order, Order) and self.order.trigger.overlap is Overlap.CANCEL_RUNNING


class Overtaken(Exception):  # noqa: N818 - it names a fact
    """A run of the trigger came up after the others were locked, and somebody else has it: look again."""


@dataclass(slots=True)
class Docket:
    """What is known while starts are decided one after another: the decided ones count for the next."""

    moment: Moment
    closed: frozenset[UUID]
    live: dict[UUID, int]
    """Live runs that are not held, of pipelines that have a limit or of which a start has an overlap rule."""
    peers: dict[TriggerKey, list[Peer]]
    locked: dict[UUID, Run]
    """Live runs of triggers of which a start cancels them."""
    new: dict[UUID, Run] = field(default_factory=dict)
    cancelled: dict[UUID, tuple[Run, Run]] = field(default_factory=dict)

    def decide(self, start: Start) -> Decision:
        """Decides a start, and what comes of it for the runs."""
        order, now = start.order, self.moment.now
        if isinstance(order, Refusal):
            return _refused(start, order.reason, order.message, now)
        if order.pipeline in self.closed:
            closed = PipelineClosed(order.pipeline)
            return _refused(start, closed.code, closed.message, now)
        known = self.peers.get(start.trigger, []) if start.trigger is not None else []
        running = tuple(peer.id for peer in known[:NAMED_PEERS])
        stopped = self._stopped(known) if start.cancels else {}
        left = [peer for peer in known if peer.id not in stopped or not stopped[peer.id].is_final]
        turned, is_run = turn(order.trigger.overlap, left, start.queue_limit)
        if not is_run:
            return Decision(
                start.key, StartOutcome.SKIPPED, now, None, str(turned), _MESSAGES[turned], running
            )
        freed = sum(not peer.held for peer in known) - sum(not peer.held for peer in left)
        room = self.live.get(order.pipeline, 0) - freed
        waits = turned is not Turn.FREE
        reason, message = (str(turned), _MESSAGES[turned]) if waits else ("", "")
        try:
            if not waits and must_wait(order.recipe.policy, room):
                waits, reason = True, "CONCURRENCY_LIMIT"
                message = "as many runs of the pipeline are live as it allows"
        except ConcurrencyLimit as error:
            full = AtConcurrencyLimit(error.limit)
            return _refused(start, full.code, full.message, now)
        self._stop(stopped)
        if order.pipeline in self.live:
            self.live[order.pipeline] = room + (not waits)
        self.new[order.run_id] = accept(order, now, held=waits)
        if start.trigger is not None:
            self.peers[start.trigger] = [*left, Peer(order.run_id, waits)]
        outcome = StartOutcome.HELD if waits else StartOutcome.STARTED
        return Decision(start.key, outcome, now, order.run_id, reason, message, running)

    def _stopped(self, peers: Sequence[Peer]) -> dict[UUID, Run]:
        return {
            peer.id: request_cancel(self._as_it_is(peer.id), CANCEL_REASON, self.moment) for peer in peers
        }

    def _as_it_is(self, run_id: UUID) -> Run:
        if run_id in self.new:
            return self.new[run_id]
        return self.cancelled[run_id][1] if run_id in self.cancelled else self.locked[run_id]

    def _stop(self, stopped: dict[UUID, Run]) -> None:
        for run_id, run in stopped.items():
            if run_id in self.new:
                self.new[run_id] = run
            else:
                self.cancelled[run_id] = (self.locked[run_id], run)


class Starter:
    """Writes decisions, their runs and the cancels that they ask for. Who holds the key decides; who comes
    with the same key later waits for that, and gets the same answer.
    """

    def __init__(self, store: Store, pool: WorkerPool, signals: Signals, moments: Moments) -> None:
        self._store = store
        self._pool = pool
        self._signals = signals
        self._moments = moments

    async def start(self, tenant: UUID, starts: Sequence[Start]) -> list[Decision]:
        """A decision for each start, once it is durable. Where one raises, those before it may be durable.

        Raises:
            Unavailable: when the database is away.
        """
        decided: dict[str, Decision] = {}
        distinct = list({start.key: start for start in reversed(starts)}.values())[::-1]
        for first in range(0, len(distinct), LARGEST):
            piece = distinct[first : first + LARGEST]
            decided.update(await self._decide(tenant, piece))
        return [decided[start.key] for start in starts]

    async def _decide(self, tenant: UUID, starts: Sequence[Start]) -> dict[str, Decision]:
        for _ in range(TRIES):
            try:
                return await self._attempt(tenant, starts)
            except Overtaken:
                continue
        raise Unavailable("a live run of the trigger")

    async def _attempt(self, tenant: UUID, starts: Sequence[Start]) -> dict[str, Decision]:
        faults.point("execution.start.before")
        slots = self._pool.reserve(2 * len(starts))
        placed = Placed({}, [], [])
        try:
            decided, placed = await self._store.run(lambda tx: self._write(tx, tenant, starts, slots))
            faults.point("execution.start.committed")
        finally:
            send(self._pool, placed.handouts, slots)
        if placed.runs:
            self._signals.told()
        self._signals.committed(placed.changes)
        if placed.any_ready:
            self._signals.ready()
        return decided

    async def _write(
        self, tx: Tx, tenant: UUID, starts: Sequence[Start], slots: Sequence[Session]
    ) -> tuple[dict[str, Decision], Placed]:
        decided = await tx.starts.take(tenant, [start.key for start in starts])
        fresh = [start for start in starts if start.key not in decided]
        if not fresh:
            return decided, Placed({}, [], [])
        docket = await self._docket(tx, fresh)
        made = [docket.decide(start) for start in fresh]
        placed = await place(tx, docket.new, slots, docket.moment, list(docket.cancelled.values()))
        await tx.starts.decide(tenant, made)
        faults.point("execution.start.decided")
        return decided | {decision.key: decision for decision in made}, placed

    async def _docket(self, tx: Tx, starts: Sequence[Start]) -> Docket:
        """Takes what decides, in the order of locks: gates, runs, limits."""
        orders = [start.order for start in starts if isinstance(start.order, Order)]
        closed = await tx.pipelines.enter({order.pipeline for order in orders}) if orders else frozenset()
        cancelling = {start.trigger for start in starts if start.cancels and start.trigger is not None}
        before = await tx.runs.live_of(cancelling)
        locked = await tx.runs.lock({peer.id for peers in before.values() for peer in peers})
        triggers = {start.trigger for start in starts if start.trigger is not None}
        ruled = {pipeline for pipeline, _ in triggers}
        limited = {order.pipeline for order in orders if order.recipe.policy.max_concurrent_runs is not None}
        live = await tx.pipelines.live_counts(ruled | limited)
        peers = await tx.runs.live_of(triggers)
        newcomers = {
            peer.id for trigger in cancelling for peer in peers.get(trigger, ()) if peer.id not in locked
        }
        locked |= await tx.runs.lock_idle(newcomers)
        if not newcomers <= locked.keys():
            raise Overtaken
        return Docket(self._moments.at(tx.now), closed, live, peers, locked)


def _refused(start: Start, reason: str, message: str, now: datetime) -> Decision:
    return Decision(start.key, StartOutcome.REFUSED, now, None, reason, message)
