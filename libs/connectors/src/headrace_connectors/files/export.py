"""Rows of the scratch into a file of the worker's own, for somebody else to keep."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace_connectors import gate, shape
from headrace_connectors.errors import quota
from headrace_connectors.files import writers
from headrace_connectors.files.options import dialect
from headrace_connectors.model import Column, Exported, FileFormat, ProgressListener, SinkSpec, no_progress
from headrace_connectors.previews import LoadPreview, load_preview
from headrace_connectors.scratch import Scratch
from headrace_connectors.transfer import Meter

_LOOK_SECONDS = 0.1


async def export_file(
    scratch: Scratch,
    relation: str,
    path: Path,
    form: FileFormat,
    options: Mapping[str, object],
    most_bytes: int = 0,
    progress: ProgressListener = no_progress,
) -> Exported:
    """See :func:`headrace_connectors.api.export_file`."""
    columns = await scratch.columns(relation)
    checks = writers.checks(columns, form)
    style = dialect(options, path.name)
    source = await gate.materialised(scratch, relation)
    try:
        passed = await gate.inspect(scratch, source, columns, checks)
        writing = asyncio.ensure_future(
            writers.write(
                scratch, source, columns, path, form, style, False, passed.row_bytes, Meter(progress)
            )
        )
        size = await _bounded(writing, path, most_bytes)
    finally:
        await gate.release(scratch, relation, source)
    return Exported(passed.rows, size, passed.checksum, tuple(columns))


def preview(columns: Sequence[Column], form: FileFormat) -> LoadPreview:
    """See :func:`headrace_connectors.api.preview_export`."""
    writers.checks(columns, form)
    matched = shape.match(columns, None, SinkSpec(format=form), "the output")
    return load_preview(matched, (column.type for column in columns), None)


async def _bounded(writing: asyncio.Future[int], path: Path, most_bytes: int) -> int:
    """The size of the file when it is written; stops as soon as it is larger than it may be."""
    try:
        while not writing.done():
            await asyncio.wait({writing}, timeout=_LOOK_SECONDS)
            if most_bytes and _size(path) > most_bytes:
                raise _too_large(most_bytes)
        return await writing
    finally:
        if not writing.done():
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _too_large(most_bytes: int) -> Exception:
    message = f"the output is larger than the {most_bytes} bytes that it may have"
    return quota("OUTPUT_TOO_LARGE", message, limit=str(most_bytes))
