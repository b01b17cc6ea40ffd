"""Another service that follows execution's events: the real consumer, with a database of its own."""

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc
from headrace_chassis.bus import Bus
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.event_sources import ServiceEvents
from headrace_chassis.outbox import EventLog, EventLogServicer
from headrace_execution.testing.memory import Data
from headrace_execution.testing.memory.data import Table

from .chassis_database import MemoryConnection, MemoryDatabase
from .network import Broker, SimulatedBus, unavailable
from .replicas import Faults, SimulatedLink, WatchedRunner
from .virtual_loop import Process

EFFECTS: Table[int, event_log_pb2.Event] = Table("effects")


class _Log:
    """How it asks for events."""

    def __init__(self, servicer: EventLogServicer, chance: random.Random, faults: Faults) -> None:
        self._servicer = servicer
        self._chance = chance
        self._faults = faults

    async def ListEvents(self, request: Any, metadata: object) -> event_log_pb2.ListEventsResponse:
        """Answers, unless the call does not get through."""
        if self._faults.active and self._chance.random() < 0.05:
            raise unavailable()
        return await self._servicer.ListEvents(request, None)


class Observer:
    """One process of a service that has an effect for each event."""

    def __init__(
        self,
        process: Process,
        theirs: Data,
        mine: Data,
        faults: Faults,
        broker: Broker,
        die: Callable[["Observer", str], None],
        wrong: Callable[[str], None],
    ) -> None:
        self.process = process
        self._mine = mine
        chance = faults.chance

        def died(when: str) -> None:
            die(self, when)

        self.bus = SimulatedBus(broker, chance, lambda: process.alive)
        log = _Log(
            EventLogServicer(
                EventLog(MemoryDatabase(theirs, SimulatedLink(theirs, faults, process, died)).as_database())
            ),
            chance,
            faults,
        )
        consumer = EventConsumer(
            MemoryDatabase(mine, SimulatedLink(mine, faults, process, died)).as_database(),
            "observer",
            ServiceEvents("execution", cast("event_log_pb2_grpc.EventLogServiceAsyncStub", log), lambda: ()),
            cast("Any", self._handle),
            bus=cast("Bus", self.bus),
            batch=5,
        )
        consumer.interval_seconds = 5.0
        self._runner = WatchedRunner([consumer], chance, wrong)

    def start(self) -> None:
        """Begins to follow."""
        self.process.start(self._runner.start())

    async def _handle(self, conn: MemoryConnection, events: Sequence[event_log_pb2.Event]) -> None:
        if conn.tx is None:
            raise AssertionError("effects belong to the transaction of the position")
        for event in events:
            conn.tx.put(EFFECTS, self._mine.next("effects"), event)
