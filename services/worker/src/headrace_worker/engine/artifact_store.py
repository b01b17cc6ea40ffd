"""Rows that one stage leaves for another: a Parquet file a task, with the cursors that its rows carry beside
it.

Workers that share a stage's run must share this folder. The cursors are written last: an artifact without
them was not finished, and counts as missing.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from headrace_connectors.api import Scratch, SourceResult, export_parquet, import_parquet

from headrace_worker.engine.cursor_values import pack_cursors, unpack_cursors
from headrace_worker.engine.failure import TRANSIENT, Failure, TaskFailed

_KEEP = "keep"
"""A file of a run's folder whose time of change is that until which the folder is needed."""


def _latest(folder: Path) -> float:
    mark = folder / _KEEP
    return max(folder.stat().st_mtime, mark.stat().st_mtime if mark.exists() else 0.0)


class ArtifactStore:
    """The artifacts below a folder, by run and task."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def write(
        self, run_id: str, task: str, scratch: Scratch, relation: str, cursors: Mapping[str, bytes]
    ) -> int:
        """Keep the rows of a relation; what an attempt before left is replaced. Returns the bytes written.

        Raises ConnectorError and OSError.
        """
        rows, about = self._paths(run_id, task)
        rows.parent.mkdir(parents=True, exist_ok=True)
        staged = await export_parquet(scratch, relation, str(rows))
        temporary = about.with_suffix(f".{uuid.uuid4().hex}.tmp")
        packed = pack_cursors(cursors)
        with temporary.open("w") as file:
            json.dump({"rows": staged.rows, "cursors": json.loads(packed) if packed else {}}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(about)
        return staged.bytes

    async def read(
        self, run_id: str, task: str, scratch: Scratch, relation: str
    ) -> tuple[SourceResult, dict[str, bytes]]:
        """Load the rows of a task of another stage into the scratch; returns their cursors, too.

        Raises TaskFailed where they are not there, and ConnectorError.
        """
        rows, about = self._paths(run_id, task)
        try:
            facts = json.loads(about.read_bytes())
        except FileNotFoundError:
            why = (
                f"the rows that task {task} left are not in the artifact store of this worker: "
                "workers must share WORKER_ARTIFACTS_DIR"
            )
            raise TaskFailed(task, Failure("ARTIFACT_MISSING", TRANSIENT, why)) from None
        result = await import_parquet(scratch, relation, str(rows))
        return result, unpack_cursors(json.dumps(facts["cursors"]).encode())

    def keep(self, run_id: str, seconds: float) -> None:
        """Have the artifacts of a run kept for so long beyond the time after which others are removed."""
        folder = self._root / str(uuid.UUID(run_id))
        folder.mkdir(parents=True, exist_ok=True)
        mark, until = folder / _KEEP, time.time() + seconds
        mark.touch()
        if mark.stat().st_mtime < until:
            os.utime(mark, (until, until))

    def sweep(self, older_than_seconds: float) -> int:
        """Remove the artifacts of runs that nothing was written to for so long, and that are not to be kept
        for longer. Returns how many runs."""
        removed = 0
        limit = time.time() - older_than_seconds
        if not self._root.is_dir():
            return 0
        for folder in self._root.iterdir():
            if folder.is_dir() and _latest(folder) < limit:
                shutil.rmtree(folder)
                removed += 1
        return removed

    def _paths(self, run_id: str, task: str) -> tuple[Path, Path]:
        folder = self._root / str(uuid.UUID(run_id))
        return folder / f"{task}.parquet", folder / f"{task}.json"
