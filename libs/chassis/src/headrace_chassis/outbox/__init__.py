"""The outbox: a service's events as a log, written in the transactions of their causes."""

from headrace_chassis.outbox.log import NewEvent, append
from headrace_chassis.outbox.schema import create_outbox

__all__ = ["NewEvent", "append", "create_outbox"]
