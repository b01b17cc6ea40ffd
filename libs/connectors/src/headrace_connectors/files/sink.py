"""Writing files: staged beside the target, landed by one rename, recorded in the target's ledger.

*replace* is one file at the path.  *append* makes the path a folder and adds one part file, named after the
load. *replace_partition* makes it a folder too, with one file a range.  A merge needs a database.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from headrace_connectors import gate, ledger, shape
from headrace_connectors.blocking import in_thread
from headrace_connectors.errors import configuration
from headrace_connectors.files import writers
from headrace_connectors.files.ledger import FOLDER, FileLedger
from headrace_connectors.files.options import dialect, format_of
from headrace_connectors.model import (
    Column,
    Connection,
    Environment,
    Guarantee,
    LoadKey,
    ProgressListener,
    Receipt,
    Series,
    SinkSpec,
    Staged,
    no_progress,
)
from headrace_connectors.previews import LoadPreview, load_preview
from headrace_connectors.roots import writable_file
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import Meter, translate

T = TypeVar("T")


class FileSink:
    """One file, or one folder of part files."""

    guarantee: Guarantee = "EXACTLY_ONCE"

    def __init__(self, spec: SinkSpec, path: Path, lock_timeout: float) -> None:
        self.spec = spec
        self.path = path
        self._form = format_of(str(path), spec.format)
        self._dialect = dialect(spec.options, str(path))
        self._ledger = FileLedger(path.parent / FOLDER / path.name, lock_timeout)
        self._claimed: tuple[LoadKey, int] | None = None
        self._staged: Staged | None = None

    @classmethod
    async def open(cls, spec: SinkSpec, connection: Connection | None, environment: Environment) -> FileSink:
        """Check path, format and mode; nothing is written yet.

        :raises ConnectorError: PATH_NOT_ALLOWED, FORMAT_UNKNOWN, MODE_NOT_SUPPORTED, TARGET_IS_A_FOLDER,
            TARGET_IS_A_FILE.
        """
        if not spec.path:
            raise configuration("PATH_INVALID", "a file sink needs a path")
        if spec.mode == "merge":
            raise configuration(
                "MODE_NOT_SUPPORTED", f"{spec.path}: files cannot be merged into; use a database table"
            )
        path = writable_file(spec.path, connection, environment)
        if spec.mode == "replace" and path.is_dir():
            raise configuration(
                "TARGET_IS_A_FOLDER", f"{spec.path} is a folder; replace writes one file", path=spec.path
            )
        if spec.mode != "replace" and path.is_file():
            raise configuration(
                "TARGET_IS_A_FILE",
                f"{spec.path} is a file; {spec.mode} writes part files into a folder",
                path=spec.path,
            )
        return cls(spec, path, environment.lock_timeout)

    async def preview(self, columns: Sequence[Column]) -> LoadPreview:
        """What loading rows of these columns would do.

        :raises ConnectorError: NO_COLUMNS, COLUMN_NOT_FOUND, TYPE_NOT_SUPPORTED.
        """
        matched = shape.match(columns, None, self.spec, str(self.spec.path))
        writers.checks(columns, self._form)
        preview = load_preview(matched, (column.type for column in columns), None)
        return replace(preview, exists=await in_thread(self.path.exists))

    async def claim(self, key: LoadKey, fence: int) -> Receipt | None:
        """Write ``fence`` into the ledger and sweep what older attempts have staged."""

        def work() -> Receipt | None:
            receipt = ledger.check_claim(key, fence, self._ledger.read(key))
            if receipt is None:
                self._ledger.write(key, ledger.Entry(fence, False, None))
                self._ledger.sweep(key, fence)
            return receipt

        receipt = await self._under_lock(work)
        if receipt is None:
            self._claimed = (key, fence)
        return receipt

    async def stage(
        self,
        scratch: Scratch,
        relation: str,
        columns: Sequence[Column] = (),
        progress: ProgressListener = no_progress,
    ) -> Staged:
        """Write the rows to the staging file; see :class:`headrace_connectors.ports.Sink`."""
        if self._claimed is None:
            raise configuration("NOT_CLAIMED", f"{self.spec.path}: stage comes after claim")
        incoming = await scratch.columns(relation)
        shape.match(incoming, None, self.spec, str(self.spec.path))
        checks = writers.checks(incoming, self._form)
        if self.spec.mode == "replace_partition" and self.spec.partition is not None:
            kind = next(c.type for c in incoming if c.name == self.spec.partition.column)
            checks += gate.partition_checks(self.spec.partition, kind)
        source = await gate.materialised(scratch, relation)
        try:
            passed = await gate.inspect(scratch, source, incoming, checks)
            path = self._ledger.staged_path(*self._claimed)
            array = self.spec.options.get("array") is True
            size = await writers.write(
                scratch,
                source,
                incoming,
                path,
                self._form,
                self._dialect,
                array,
                passed.row_bytes,
                Meter(progress),
            )
        finally:
            await gate.release(scratch, relation, source)
        self._staged = Staged(passed.rows, size, passed.checksum)
        return self._staged

    async def take_turn(self, series: Series, fence: int) -> Receipt | None:
        """Raise the fence of the series; the lock makes a commit under way come first."""

        def work() -> Receipt | None:
            after = ledger.after_turn(self._ledger.read_series(series), fence)
            self._ledger.write_series(series, after)
            return after.receipt

        return await self._under_lock(work)

    async def commit(
        self, key: LoadKey, fence: int, cursor: bytes | None = None, series: Series | None = None
    ) -> Receipt:
        """Check the fence and land the file, under the target's lock."""
        staged = self._staged
        if staged is None or self._claimed != (key, fence):
            raise configuration(
                "NOT_STAGED", f"task {key.task}: commit comes after claim and stage of the same attempt"
            )

        def work() -> Receipt:
            receipt = ledger.check_commit(key, fence, self._ledger.read(key))
            if receipt is not None:
                return receipt
            if series is not None:
                standing = self._ledger.read_series(series)
                ledger.check_turn(series, fence, standing)
                self._ledger.write_series(series, standing or ledger.Entry(fence, False, None), landing=key)
            final = self._final(key)
            final.parent.mkdir(parents=True, exist_ok=True)
            receipt = Receipt(
                staged.rows, staged.bytes, staged.checksum, cursor, fence, dt.datetime.now(dt.UTC)
            )
            return self._ledger.land(key, fence, self._ledger.staged_path(key, fence), final, receipt)

        return await self._under_lock(work)

    async def receipt(self, key: LoadKey) -> Receipt | None:
        """The receipt of ``key``, if it landed."""

        def work() -> Receipt | None:
            entry = self._ledger.read(key)
            return entry.receipt if entry else None

        return await self._under_lock(work)

    async def tombstone(self, key: LoadKey, fence: int | None = None) -> Receipt | None:
        """Raise the fence; the lock makes a commit under way come first."""

        def work() -> Receipt | None:
            entry = self._ledger.read(key)
            if entry is not None and entry.receipt is not None:
                return entry.receipt
            after = ledger.buried(entry, fence)
            self._ledger.write(key, after)
            if after.tombstoned:
                self._ledger.sweep(key)  # whoever wrote it may be dead, and nobody comes after
            return None

        return await self._under_lock(work)

    async def abandon(self) -> None:
        """Remove the staged file, unless an intent is out for it: then the ledger has the word."""
        if self._claimed is None:
            return
        key, fence = self._claimed

        def work() -> None:
            entry = self._ledger.read(key)
            if entry is None or entry.receipt is not None:
                return
            staged = self._ledger.staged_path(key, fence)
            if staged.exists():
                os.truncate(staged, 0)  # where the disk is full, there is room for the ledger now
            self._ledger.write(key, entry)
            staged.unlink(missing_ok=True)

        await self._under_lock(work)
        self._staged = None

    async def close(self) -> None:
        """Nothing stays open between calls."""

    def _final(self, key: LoadKey) -> Path:
        ending = {"csv": ".csv", "json": ".json", "parquet": ".parquet"}[self._form]
        partition = self.spec.partition
        if self.spec.mode == "append":
            return self.path / f"part-{ledger.load_id(key)}{ending}"
        if self.spec.mode == "replace_partition" and partition is not None:
            label = f"{partition.column}_{partition.start}_{partition.end}"
            return self.path / f"part-{re.sub(r'[^A-Za-z0-9_.+-]', '-', label)}{ending}"
        return self.path

    async def _under_lock(self, work: Callable[[], T]) -> T:
        def call() -> T:
            try:
                with self._ledger.locked():
                    return work()
            except Exception as error:
                raise translate(error, str(self.spec.path)) from error

        return await in_thread(call)
