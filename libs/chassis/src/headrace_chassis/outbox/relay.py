"""The parts of a service's outbox that run, put together."""

from headrace_chassis.agents import Agent
from headrace_chassis.bus import Bus
from headrace_chassis.database import Database
from headrace_chassis.outbox.pruner import OutboxPruner
from headrace_chassis.outbox.publisher import OutboxPublisher
from headrace_chassis.outbox.reading import EventLog
from headrace_chassis.outbox.sequencer import OutboxSequencer


class OutboxRelay:
    """Moves events from the transactions that wrote them to those that follow them.

    `agents` are for the service's AgentRunner. Each is independent of the others: with NATS away or slow,
    events get their positions and are served all the same.
    """

    def __init__(self, db: Database, service: str, bus: Bus, log: EventLog) -> None:
        publisher = OutboxPublisher(db, service, bus, log)
        self._sequencer = OutboxSequencer(db, assigned=publisher.wake)
        self.agents: tuple[Agent, ...] = (self._sequencer, publisher, OutboxPruner(db))

    def wake(self) -> None:
        """Says that events were committed; without it they are found within a second."""
        self._sequencer.wake()
