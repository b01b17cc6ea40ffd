"""Puts outputs of runs into the artifact store: files that stage processes have written, which know neither
the store nor its credentials.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

import structlog
from headrace.execution.v1 import workers_pb2
from headrace_artifacts.keys import OUTPUTS, new_key, run_prefix
from headrace_artifacts.store import ArtifactError, ArtifactStore, ArtifactStoreFull

from headrace_worker.engine.failure import QUOTA, TRANSIENT, Failure
from headrace_worker.engine.outputs import StoredFile

_log = structlog.get_logger(__name__)

_PIECE = 1024 * 1024


class _GivenUp(Exception):  # noqa: N818 - it names a fact
    """Nobody waits for the file any more."""


class OutputKeeper:
    """Keeps files, and removes those that nothing will ever point to."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    async def keep(self, assignment: workers_pb2.Assignment, task: str, path: Path) -> StoredFile | Failure:
        """The file in the store, or why it is not there. Cancelled, it leaves nothing."""
        run = run_prefix(UUID(assignment.tenant), UUID(assignment.pipeline_id), UUID(assignment.run_id))
        key = new_key(run, OUTPUTS, f"{task}-{assignment.ref.fence}", path.suffix.removeprefix("."))
        given_up = threading.Event()
        putting = asyncio.ensure_future(asyncio.to_thread(self._put, key, path, given_up))
        try:
            return await asyncio.shield(putting)
        except asyncio.CancelledError:
            given_up.set()
            kept = await putting
            if isinstance(kept, StoredFile):
                await self.remove([kept.key])
            raise

    def _put(self, key: str, path: Path, given_up: threading.Event) -> StoredFile | Failure:
        try:
            stored = self._artifacts.put(key, _pieces(path, given_up))
            return StoredFile(key, stored.bytes, stored.sha256)
        except ArtifactStoreFull:
            why = "there is no room for the output in the artifact store"
            return Failure("ARTIFACT_STORE_FULL", QUOTA, why)
        except ArtifactError as error:
            why = f"the output could not be kept: {error}"
            return Failure("ARTIFACT_STORE_UNAVAILABLE", TRANSIENT, why)
        except _GivenUp:
            return Failure("GIVEN_UP", TRANSIENT, "nobody waits for the output any more")

    async def remove(self, keys: Sequence[str]) -> None:
        """Removes files that no result names. What cannot be removed goes with its run."""
        try:
            await asyncio.to_thread(self._artifacts.delete, keys)
        except ArtifactError as error:
            _log.warning("outputs that did not land could not be removed", files=len(keys), error=str(error))


def _pieces(path: Path, given_up: threading.Event) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            if given_up.is_set():
                raise _GivenUp
            yield piece
