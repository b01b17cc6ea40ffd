"""Where the events come from that an EventConsumer follows: another service's log, or the service's own."""

from collections.abc import Callable
from typing import Protocol

import grpc
from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc

from headrace_chassis.channels import Metadata
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.outbox import EventLog


class EventSource(Protocol):
    """A log of events, in the order of their positions."""

    @property
    def service(self) -> str:
        """The service whose log it is: the name that positions are kept under, and that wakes come from."""

    @property
    def may_repeat(self) -> bool:
        """Whether the log and the followers' positions may be restored apart from one another, so that an
        event which was handled may come again."""

    async def read(self, request: event_log_pb2.ListEventsRequest) -> event_log_pb2.ListEventsResponse:
        """Returns events after a position, and where to go on; raises HeadraceError."""


class ServiceEvents:
    """The log of another service, read by ListEvents with the credentials that `metadata` returns."""

    may_repeat = True

    def __init__(
        self,
        service: str,
        log: "event_log_pb2_grpc.EventLogServiceAsyncStub",
        metadata: Callable[[], Metadata],
    ) -> None:
        self.service = service
        self._log = log
        self._metadata = metadata

    async def read(self, request: event_log_pb2.ListEventsRequest) -> event_log_pb2.ListEventsResponse:
        """Asks the service."""
        try:
            return await self._log.ListEvents(request, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


class OwnEvents:
    """The service's own log, read from its own database: for work that follows what the service did, and that
    must not make it slower.

    The log, the position and the effects are in one database and one backup, so that the position alone
    says what was handled.
    """

    may_repeat = False

    def __init__(self, service: str, log: EventLog) -> None:
        self.service = service
        self._log = log

    async def read(self, request: event_log_pb2.ListEventsRequest) -> event_log_pb2.ListEventsResponse:
        """Reads the outbox."""
        return await self._log.read(request.after, request.limit, request.types)
