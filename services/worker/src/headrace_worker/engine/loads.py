"""The loads of a stage: each sink with its key in the ledger of its target."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.execution.v1 import workers_pb2
from headrace_connectors.api import (
    Column,
    Environment,
    LoadKey,
    ProgressListener,
    Receipt,
    Scratch,
    Series,
    Sink,
    SinkSpec,
    Staged,
    open_sink,
)
from headrace_definition.plan import SinkTask

from headrace_worker.engine.binding import Binding
from headrace_worker.engine.connections import Connections
from headrace_worker.engine.cursor_values import unpack_cursors
from headrace_worker.engine.outputs import Outputs, OutputSink
from headrace_worker.engine.shapes import LoadShape


@dataclass(frozen=True)
class LandedLoad:
    """A load and the target's proof that it landed."""

    task: str
    partition: str
    receipt: Receipt
    output: workers_pb2.StoredOutput | None = None
    """The file, where the load is an output of the run."""
    shape: LoadShape | None = None
    """What its rows look like, where this attempt has staged them."""

    @property
    def cursors(self) -> dict[str, bytes]:
        """Where the sources go on after it, by source task."""
        return unpack_cursors(self.receipt.cursor)


@dataclass
class Load:
    """One sink of a stage, opened, and how far it is."""

    task: SinkTask
    spec: SinkSpec
    key: LoadKey
    sink: Sink
    receipt: Receipt | None = None
    committing: bool = False
    """A commit was begun: without a receipt, nobody knows whether it landed."""
    series: Series | None = None
    """The series whose turn it has, where its rows come from incremental sources."""
    caught_up: Mapping[str, bytes] = field(default_factory=dict)
    """How far its sources have come by loads that the server was not told of."""
    shape: LoadShape | None = None

    @property
    def landed(self) -> LandedLoad | None:
        """The proof that it landed."""
        if self.receipt is None:
            return None
        output = self.sink.output if isinstance(self.sink, OutputSink) else None
        return LandedLoad(self.task.key, self.key.partition, self.receipt, output, self.shape)

    async def stage(
        self, scratch: Scratch, relation: str, columns: Sequence[Column], progress: ProgressListener
    ) -> Staged:
        """Put the rows beside the target."""
        return await self.sink.stage(scratch, relation, columns, progress)

    async def commit(self, fence: int, cursor: bytes | None) -> Receipt:
        """Make the staged rows visible and keep the receipt."""
        self.committing = True
        self.receipt = await self.sink.commit(self.key, fence, cursor, self.series)
        return self.receipt

    async def close(self) -> None:
        """Drop what was staged and has not landed, and let go of the connection."""
        try:
            if self.receipt is None:
                await self.sink.abandon()
        finally:
            await self.sink.close()


async def open_load(
    task: SinkTask, binding: Binding, connections: Connections, environment: Environment, outputs: Outputs
) -> Load:
    """Open a sink. Raises TaskFailed and ConnectorError."""
    spec = binding.sink(task)
    if task.config.output is not None:
        return Load(task, spec, binding.load_key(task, spec), OutputSink(task.key, spec, outputs))
    connection = connections.get(task.key, task.config.connection) if task.config.connection else None
    return Load(task, spec, binding.load_key(task, spec), await open_sink(spec, connection, environment))


async def close_all(loads: Sequence[Load]) -> list[Exception]:
    """Close loads, each whatever becomes of the others. Returns what went wrong, for the log."""
    problems: list[Exception] = []
    for load in loads:
        try:
            await load.close()
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await load.sink.close()
            raise
        except Exception as error:  # noqa: BLE001 - the stage's end is known by now; cleaning up must not change it
            problems.append(error)
    return problems
