"""RunLogService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import grpc
from headrace.execution.v1 import logs_pb2, logs_pb2_grpc
from headrace_artifacts.store import ArtifactError
from headrace_chassis.errors import Unavailable
from headrace_chassis.identity import current_principal
from headrace_chassis.slots import StreamSlots

from headrace_execution import convert
from headrace_execution.logs.reading import LogReader
from headrace_execution.store.port import Store
from headrace_execution.visibility import visible_run

MOST_LINES = 1000
"""How many lines are shown where the request does not say."""

Context = grpc.aio.ServicerContext[object, object]


class RunLogServicer(logs_pb2_grpc.RunLogServiceServicer):
    """Shows the logs of runs."""

    def __init__(self, *, store: Store, reader: LogReader, slots: StreamSlots) -> None:
        """`slots` bounds how many logs are followed at once."""
        self._store = store
        self._reader = reader
        self._slots = slots

    async def GetRunLogs(
        self, request: logs_pb2.GetRunLogsRequest, context: Context
    ) -> logs_pb2.GetRunLogsResponse:
        """See the contract."""
        run = await visible_run(self._store, current_principal(), UUID(request.run_id))
        try:
            latest = await self._reader.latest(run, request.task, request.lines or MOST_LINES)
        except ArtifactError as error:
            raise Unavailable("the artifact store") from error
        return logs_pb2.GetRunLogsResponse(
            run_id=str(run.id),
            status=convert.run_state(run.state),
            has_earlier=latest.has_earlier,
            lines=[convert.log_line(line) for line in latest.lines],
        )

    async def FollowRunLogs(
        self, request: logs_pb2.GetRunLogsRequest, context: Context
    ) -> AsyncIterator[logs_pb2.LogLine]:
        """See the contract."""
        run = await visible_run(self._store, current_principal(), UUID(request.run_id))
        principal = current_principal()
        give_back = self._slots.take((principal.tenant, principal.subject))
        lines = self._reader.follow(run, request.task, request.lines or MOST_LINES)
        try:
            async with aclosing(lines):
                async for line in lines:
                    yield convert.log_line(line)
        except ArtifactError as error:
            raise Unavailable("the artifact store") from error
        finally:
            give_back()
