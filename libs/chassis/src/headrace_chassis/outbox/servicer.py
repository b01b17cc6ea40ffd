"""The log as others read it: headrace.common.v1.EventLogService."""

from typing import Any

from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc

from headrace_chassis.outbox.reading import EventLog
from headrace_chassis.server import Service


class EventLogServicer(event_log_pb2_grpc.EventLogServiceServicer):
    """Serves the outbox of one database."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def ListEvents(
        self, request: event_log_pb2.ListEventsRequest, context: Any
    ) -> event_log_pb2.ListEventsResponse:
        """Returns events after a position, and where to go on."""
        return await self._log.read(request.after, request.limit, request.types)


def event_log(log: EventLog) -> Service:
    """Returns the service for a GrpcServer."""
    return (
        event_log_pb2.DESCRIPTOR.services_by_name["EventLogService"],
        event_log_pb2_grpc.add_EventLogServiceServicer_to_server,
        EventLogServicer(log),
    )
