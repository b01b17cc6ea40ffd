"""Outputs: sinks whose rows are kept as a file with the run.

The file goes into the artifact store under a key of its own and counts when execution folds a result that
bears its receipt, which it does under a valid fence alone: that is what the ledger is to other loads. So an
attempt too late, or one that was cancelled, can replace nothing, and an attempt that follows is told what has
landed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_connectors.api import (
    Column,
    Exported,
    FileFormat,
    Guarantee,
    LoadKey,
    ProgressListener,
    Receipt,
    Scratch,
    Series,
    SinkSpec,
    Staged,
    export_file,
    no_progress,
)

from headrace_worker.engine.failure import INTERNAL, Failure, TaskFailed


@dataclass(frozen=True)
class StoredFile:
    """A file in the artifact store."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Outputs:
    """What output sinks need of their surroundings."""

    folder: Path
    """Where a file is written before it is kept."""
    keep: Callable[[str, str], Awaitable[StoredFile]]
    """Has the worker put a file of that folder into the artifact store, for a task. Raises TaskFailed."""
    most_bytes: int = 0
    """The largest that an output may be; 0 is no limit."""
    landed: Mapping[str, workers_pb2.Receipt] = field(default_factory=dict)
    """The outputs that earlier attempts have landed, by sink."""


class OutputSink:
    """Keeps rows as a file (`Sink` of the connectors)."""

    guarantee: Guarantee = "EXACTLY_ONCE"

    def __init__(self, task: str, spec: SinkSpec, outputs: Outputs) -> None:
        if spec.format is None:
            raise TaskFailed(task, Failure("FORMAT_UNKNOWN", INTERNAL, "an output has a format"))
        self._task = task
        self._form: FileFormat = spec.format
        self._spec = spec
        self._outputs = outputs
        self._exported: Exported | None = None
        self._stored: StoredFile | None = None

    @property
    def output(self) -> workers_pb2.StoredOutput | None:
        """The file, once it is kept or where an earlier attempt has landed it."""
        landed = self._outputs.landed.get(self._task)
        if landed is not None:
            return landed.output
        if self._stored is None or self._exported is None:
            return None
        return workers_pb2.StoredOutput(
            key=self._stored.key,
            format=self._form,
            bytes=self._stored.bytes,
            sha256=self._stored.sha256,
            columns=[
                runs_pb2.OutputColumn(name=column.name, type=column.type) for column in self._exported.columns
            ],
        )

    async def claim(self, key: LoadKey, fence: int) -> Receipt | None:
        """The receipt where an earlier attempt has landed it. There is nothing to claim: only the holder of
        the lease is listened to.
        """
        return await self.receipt(key)

    async def stage(
        self,
        scratch: Scratch,
        relation: str,
        columns: Sequence[Column] = (),
        progress: ProgressListener = no_progress,
    ) -> Staged:
        """Write the file and have it kept; nothing points to it yet."""
        self._outputs.folder.mkdir(parents=True, exist_ok=True)
        path = self._outputs.folder / f"output-{self._task}.{self._form}"
        try:
            exported = await export_file(
                scratch, relation, path, self._form, self._spec.options, self._outputs.most_bytes, progress
            )
            self._stored = await self._outputs.keep(self._task, path.name)
        finally:
            path.unlink(missing_ok=True)
        self._exported = exported
        return Staged(exported.rows, self._stored.bytes, exported.checksum)

    async def take_turn(self, series: Series, fence: int) -> Receipt | None:
        """Nothing: what has landed is what execution has been told of, and it tells how far that came."""
        return None

    async def commit(
        self, key: LoadKey, fence: int, cursor: bytes | None = None, series: Series | None = None
    ) -> Receipt:
        """The receipt, which lands the file when execution folds it."""
        if self._stored is None or self._exported is None:
            raise TaskFailed(self._task, Failure("NOT_STAGED", INTERNAL, "commit comes after stage"))
        exported = self._exported
        now = dt.datetime.now(dt.UTC)
        return Receipt(exported.rows, self._stored.bytes, exported.checksum, cursor, fence, now)

    async def receipt(self, key: LoadKey) -> Receipt | None:
        """The receipt of an earlier attempt."""
        landed = self._outputs.landed.get(self._task)
        if landed is None:
            return None
        when = landed.landed_at.ToDatetime(tzinfo=dt.UTC)
        return Receipt(landed.rows, landed.bytes, landed.checksum, None, landed.fence, when)

    async def tombstone(self, key: LoadKey, fence: int | None = None) -> Receipt | None:
        """The receipt of an earlier attempt: what has none by now is not listened to any more."""
        return await self.receipt(key)

    async def abandon(self) -> None:
        """Nothing: what no result names is removed by the supervisor."""

    async def close(self) -> None:
        """Nothing to let go of."""
