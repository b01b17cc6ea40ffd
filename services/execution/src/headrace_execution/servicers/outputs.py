"""RunOutputService."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import grpc
from google.api import httpbody_pb2
from headrace.execution.v1 import outputs_pb2, outputs_pb2_grpc
from headrace_artifacts.keys import pipeline_prefix
from headrace_artifacts.store import ArtifactError, ArtifactMissing, ArtifactStore, Reader
from headrace_chassis.errors import InvalidRequest, NotFound, Problem, Unavailable
from headrace_chassis.identity import current_principal
from headrace_chassis.slots import StreamSlots

from headrace_execution.convert import CONTENT_TYPES
from headrace_execution.domain.run import Run, StoredOutput
from headrace_execution.errors import OutputNotLanded
from headrace_execution.ranges import Selection, select
from headrace_execution.store.port import Store
from headrace_execution.visibility import visible_run

PIECE = 256 * 1024
"""How many bytes a message carries."""

OUTPUT = "output"
"""The type of the tasks that leave outputs."""

Context = grpc.aio.ServicerContext[object, object]


class RunOutputServicer(outputs_pb2_grpc.RunOutputServiceServicer):
    """Hands out what the output sinks of runs have landed."""

    def __init__(self, *, store: Store, artifacts: ArtifactStore, slots: StreamSlots) -> None:
        """`slots` bounds how many are downloaded at once."""
        self._store = store
        self._artifacts = artifacts
        self._slots = slots

    async def DownloadRunOutput(
        self, request: outputs_pb2.DownloadRunOutputRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """See the contract."""
        principal = current_principal()
        run = await visible_run(self._store, principal, UUID(request.run_id))
        sink = _sink(run, request.sink)
        output = _landed(run, sink)
        tag = f'"{output.sha256}"'
        asked = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        selection = select(
            output.bytes,
            tag,
            none_match=asked.get("http-if-none-match", ""),
            wanted=asked.get("http-range", ""),
            if_range=asked.get("http-if-range", ""),
        )
        give_back = self._slots.take((principal.tenant, principal.subject))
        reader: Reader | None = None
        try:
            reader = await self._open(output, selection)
            await context.send_initial_metadata(_headers(run, sink, output, selection, tag))
            left, content_type = selection.length, CONTENT_TYPES[output.format]
            while left:
                data = await self._read(reader, min(left, PIECE))
                left -= len(data)
                yield httpbody_pb2.HttpBody(content_type=content_type, data=data)
        finally:
            give_back()
            if reader is not None:
                await asyncio.to_thread(reader.close)

    async def _open(self, output: StoredOutput, selection: Selection) -> Reader:
        try:
            return await asyncio.to_thread(self._artifacts.open, output.key, selection.start)
        except ArtifactMissing:
            raise NotFound("output", output.key.rpartition("/")[2]) from None
        except ArtifactError as error:
            raise Unavailable("the artifact store") from error

    @staticmethod
    async def _read(reader: Reader, most: int) -> bytes:
        try:
            data = await asyncio.to_thread(reader.read, most)
        except ArtifactError as error:
            raise Unavailable("the artifact store") from error
        if not data:
            raise Unavailable("the rest of the output")  # it is shorter than it was when it landed
        return data


def _sink(run: Run, wanted: str) -> str:
    """The sink that is meant."""
    sinks = [task.key for task in run.recipe.tasks if task.kind == "sink" and task.type == OUTPUT]
    if wanted:
        if wanted not in sinks:
            raise NotFound("output", wanted)
        return wanted
    if not sinks:
        raise NotFound("output of run", run.id)
    if len(sinks) > 1:
        told = f"the run has several outputs; name one of them: {', '.join(sinks)}"
        raise InvalidRequest([Problem("REQUIRED", "sink", told)])
    return sinks[0]


def _landed(run: Run, sink: str) -> StoredOutput:
    receipt = next((receipt for receipt in run.outputs if receipt.sink == sink), None)
    if receipt is None or receipt.output is None:
        raise OutputNotLanded(run.id, sink, run.state, may_come=not run.is_final)
    if not receipt.output.key.startswith(pipeline_prefix(run.tenant, run.pipeline) + "/"):
        raise NotFound("output", sink)  # no worker of ours says that
    return receipt.output


def _headers(
    run: Run, sink: str, output: StoredOutput, selection: Selection, tag: str
) -> tuple[tuple[str, str], ...]:
    """What the gateway makes headers of."""
    headers = [("http-status", str(selection.status)), ("http-etag", tag), ("http-accept-ranges", "bytes")]
    content_range = selection.content_range(output.bytes)
    if content_range is not None:
        headers.append(("http-content-range", content_range))
    if selection.status in (200, 206):
        headers.append(("http-content-length", str(selection.length)))
        name = f"{sink}-{run.id}.{output.format}"
        headers.append(("http-content-disposition", f'attachment; filename="{name}"'))
    return tuple(headers)
