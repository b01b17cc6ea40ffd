"""What goes wrong, and when: processes die or stand still, streams break, database and broker go away."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace_execution.testing.memory import Data

from .replicas import Replica
from .workers import Worker

if TYPE_CHECKING:
    from .simulation import World

LASTS = 20.0
"""For how many seconds things go wrong; then all is repaired."""


class Mischief:
    """Draws faults and plays them."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance
        self._acts = (
            self._kill_replica,
            self._kill_worker,
            # What is late is harder than what is lost.
            self._stop_worker,
            self._stop_worker,
            self._cut_stream,
            self._stall_stream,
            self._stall_stream,
            self._stall_stream,
            self._stop_replica,
            self._drain_replica,
            self._drain_worker,
            self._restart_database,
            self._lose_broker,
            self._kill_observer,
        )

    async def play(self, *, calm: bool, is_over: Callable[[], bool]) -> None:
        """Lets everything go wrong for a while, or until all is over before that; then repairs it."""
        world, chance = self._world, self._chance
        if not calm:
            world.judge.is_calm = False
            world.faults.crash = chance.choice((0.0, 0.0, 0.002, 0.01))
            for _ in range(chance.randrange(8)):
                world.after(chance.uniform(0.5, LASTS - 3), chance.choice(self._acts))
        else:
            self._repair()
        while world.loop.time() < LASTS and not is_over():  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(1.0)
        self._repair()

    def _repair(self) -> None:
        world = self._world
        world.faults.active = False
        world.network.unsteady = False
        world.around.unsteady = False

    def _replica(self) -> Replica | None:
        found = self._world.replicas
        return self._chance.choice(found) if found else None

    def _worker(self) -> Worker | None:
        found = self._world.workers
        return self._chance.choice(found) if found else None

    def _kill_replica(self) -> None:
        if (replica := self._replica()) is not None:
            self._world.kill_replica(replica)

    def _kill_worker(self) -> None:
        if (worker := self._worker()) is not None:
            self._world.kill_worker(worker)

    def _stop_worker(self) -> None:
        worker = self._worker()
        if worker is None or worker.process.stopped:
            return
        seconds = self._short_or_beyond_lease()
        self._world.note(f"{worker.process.name} is stopped for {seconds:.1f} s")
        worker.disturb()
        worker.process.stop()
        self._world.after(seconds, lambda: self._go_on(worker))

    def _short_or_beyond_lease(self) -> float:
        return self._chance.choice((self._chance.uniform(0.2, 5.0), self._chance.uniform(6.5, 14.0)))

    def _go_on(self, who: Worker | Replica) -> None:
        if who.process.alive:
            self._world.note(f"{who.process.name} goes on")
            for worker in self._world.workers:
                worker.disturb()
            who.process.go_on()

    def _stop_replica(self) -> None:
        replica = self._replica()
        if replica is None or replica.process.stopped:
            return
        seconds = self._chance.uniform(0.2, 10.0)
        self._world.note(f"{replica.process.name} is stopped for {seconds:.1f} s")
        replica.process.stop()
        self._world.after(seconds, lambda: self._go_on(replica))

    def _cut_stream(self) -> None:
        worker = self._worker()
        if worker is not None and worker.stream is not None:
            self._world.note(f"the stream of {worker.process.name} is cut")
            worker.stream.cut()

    def _stall_stream(self) -> None:
        worker = self._worker()
        if worker is not None and worker.stream is not None:
            seconds = self._short_or_beyond_lease()
            self._world.note(f"the stream of {worker.process.name} is held up for {seconds:.1f} s")
            worker.disturb()
            worker.stream.stall(seconds)
            self._world.after(seconds, worker.disturb)

    def _drain_replica(self) -> None:
        replica = self._replica()
        if replica is None:
            return
        self._world.note(f"{replica.process.name} is asked to go down")
        replica.process.start(replica.drain())
        self._world.after(1.0, lambda: self._world.kill_replica(replica, "after its drain"))

    def _drain_worker(self) -> None:
        worker = self._worker()
        if worker is None:
            return
        self._world.note(f"{worker.process.name} is asked to go down")
        drained = worker.process.start(worker.drain())
        drained.add_done_callback(lambda _: self._world.kill_worker(worker, "after its drain"))

    def _restart_database(self) -> None:
        world = self._world
        seconds = self._chance.uniform(0.1, 4.0)
        world.note(f"the database is away for {seconds:.1f} s")
        world.faults.is_down = True
        _end_all(world.data)
        world.after(seconds, self._bring_database_back)

    def _bring_database_back(self) -> None:
        self._world.faults.is_down = False

    def _lose_broker(self) -> None:
        world = self._world
        world.note("the broker goes away")
        world.broker.go_away()
        world.after(self._chance.uniform(0.5, 15.0), world.broker.come_back)

    def _kill_observer(self) -> None:
        self._world.kill_observer()


def _end_all(data: Data) -> None:
    """Every transaction under way ends, whoever waits for a lock included."""
    for tx in list(data.open):
        data.break_off(tx)
