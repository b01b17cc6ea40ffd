"""The worker's own folder for scratch files, and what dead workers left of theirs."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType

_LOCK = ".lock"


class TempFolder:
    """A folder that is this process' own: its lock says that it is in use, and falls when the process
    dies.
    """

    def __init__(self, parent: Path, worker_id: str) -> None:
        self._parent = parent
        self.path = parent / worker_id
        self._lock: int | None = None

    def __enter__(self) -> TempFolder:
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        self.path.mkdir(mode=0o700)
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _sweep(self) -> None:
        """Remove the folders of workers that were killed."""
        for folder in self._parent.iterdir():
            try:
                lock = os.open(folder / _LOCK, os.O_RDWR)
            except OSError:
                continue  # not a worker's folder, or one that is being made
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # in use
            else:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
