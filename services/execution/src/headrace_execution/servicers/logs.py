"""RunLogService."""

from collections.abc import AsyncIterator
from uuid import UUID

import grpc
from headrace.execution.v1 import logs_pb2, logs_pb2_grpc
from headrace_artifacts.store import ArtifactError
from headrace_chassis.errors import NotFound, RateLimited, Unavailable
from headrace_chassis.identity import current_principal

from headrace_execution import convert
from headrace_execution.domain.run import Run
from headrace_execution.logs.reading import LogReader
from headrace_execution.store.port import Store

MOST_LINES = 1000
"""How many lines are shown where the request does not say."""

MOST_FOLLOWERS = 500
"""How many logs are followed at once in one process."""

Context = grpc.aio.ServicerContext[object, object]


class RunLogServicer(logs_pb2_grpc.RunLogServiceServicer):
    """Shows the logs of runs."""

    def __init__(self, *, store: Store, reader: LogReader) -> None:
        self._store = store
        self._reader = reader
        self._followers = 0

    async def GetRunLogs(
        self, request: logs_pb2.GetRunLogsRequest, context: Context
    ) -> logs_pb2.GetRunLogsResponse:
        """See the contract."""
        run = await self._visible(UUID(request.run_id))
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
        run = await self._visible(UUID(request.run_id))
        if self._followers >= MOST_FOLLOWERS:
            raise RateLimited(retry_after=5.0)
        self._followers += 1
        try:
            async for line in self._reader.follow(run, request.task, request.lines or MOST_LINES):
                yield convert.log_line(line)
        except ArtifactError as error:
            raise Unavailable("the artifact store") from error
        finally:
            self._followers -= 1

    async def _visible(self, run_id: UUID) -> Run:
        principal = current_principal()
        run = await self._store.get(principal.tenant, run_id)
        if run is None or not principal.may_use(run.workspace):
            raise NotFound("run", run_id)
        return run
