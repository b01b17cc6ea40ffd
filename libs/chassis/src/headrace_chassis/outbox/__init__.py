"""The outbox: a service's events as a log, written in the transactions of their causes."""

from headrace_chassis.outbox.log import NewEvent, append
from headrace_chassis.outbox.pruner import OutboxPruner
from headrace_chassis.outbox.publisher import OutboxPublisher
from headrace_chassis.outbox.reading import EventLog
from headrace_chassis.outbox.relay import OutboxRelay
from headrace_chassis.outbox.schema import create_outbox
from headrace_chassis.outbox.sequencer import OutboxSequencer
from headrace_chassis.outbox.servicer import EventLogServicer, event_log

__all__ = [
    "EventLog",
    "EventLogServicer",
    "NewEvent",
    "OutboxPruner",
    "OutboxPublisher",
    "OutboxRelay",
    "OutboxSequencer",
    "append",
    "create_outbox",
    "event_log",
]
