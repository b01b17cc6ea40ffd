"""How far the tasks of a stage are, as they are shown to people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headrace_chassis import faults
from headrace_connectors.api import ProgressListener

from headrace_worker.engine.failure import Failure
from headrace_worker.engine.run_log import RunLog

PENDING = "PENDING"
RUNNING = "RUNNING"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"


@dataclass
class TaskRecord:
    """A task as it stands. Counts are totals of this attempt."""

    key: str
    state: str = PENDING
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    rows_in: int = 0
    rows_out: int = 0
    bytes: int = 0
    failure: Failure | None = None


class TaskBoard:
    """The records of all tasks of a stage; `changed` says whether anything did since it was last looked
    at. Their steps are told in the log, too.
    """

    def __init__(self, keys: Iterable[str], now: Callable[[], dt.datetime], log: RunLog) -> None:
        self.records = {key: TaskRecord(key) for key in keys}
        self.changed = False
        self._now = now
        self._log = log

    def start(self, key: str) -> None:
        """The task begins; counts of an earlier pass over the sources stay until new ones come."""
        record = self.records[key]
        if record.state != RUNNING:
            self._log.info(key, "started")
        record.state, record.finished_at = RUNNING, None
        record.started_at = record.started_at or self._now()
        self.changed = True

    def reading(self, key: str) -> ProgressListener:
        """A listener that shows what a source has read so far."""

        def listen(rows: int, size: int) -> None:
            self.moved(key, rows_out=rows, size=size)

        return listen

    def writing(self, key: str) -> ProgressListener:
        """A listener that shows what a sink has been given so far."""

        def listen(rows: int, size: int) -> None:
            faults.point("worker.load.copying")
            self.moved(key, rows_in=rows, size=size)

        return listen

    def moved(
        self, key: str, *, rows_in: int | None = None, rows_out: int | None = None, size: int | None = None
    ) -> None:
        """New totals of a task."""
        record = self.records[key]
        record.rows_in = record.rows_in if rows_in is None else rows_in
        record.rows_out = record.rows_out if rows_out is None else rows_out
        record.bytes = record.bytes if size is None else size
        self.changed = True

    def complete(
        self, key: str, *, rows_in: int | None = None, rows_out: int | None = None, size: int | None = None
    ) -> None:
        """The task is done."""
        self.moved(key, rows_in=rows_in, rows_out=rows_out, size=size)
        record = self.records[key]
        record.started_at = record.started_at or self._now()
        record.state, record.finished_at = COMPLETED, self._now()
        took = record.finished_at - record.started_at
        self._log.info(key, "completed", **_counts(record), milliseconds=int(took.total_seconds() * 1000))

    def fail(self, key: str, failure: Failure) -> None:
        """The task failed."""
        record = self.records.get(key)
        if record is None:
            return
        is_told = record.failure == failure
        record.started_at = record.started_at or self._now()
        record.state, record.finished_at, record.failure = FAILED, self._now(), failure
        self.changed = True
        if is_told:
            return
        about = {"code": failure.code, "class": failure.error_class, **failure.details}
        self._log.error(key, failure.message, **about)

    def tell(self) -> None:
        """Say in the log how far the tasks are that go on."""
        for record in self.records.values():
            if record.state == RUNNING and (record.rows_in or record.rows_out):
                self._log.info(record.key, "goes on", **_counts(record))

    def stop(self, state: str) -> None:
        """The stage is over: what still runs does not any more, and is CANCELLED, or PENDING to be tried
        again.
        """
        for record in self.records.values():
            if record.state == RUNNING:
                record.state = state
                record.finished_at = self._now() if state == CANCELLED else None
                self.changed = True


def _counts(record: TaskRecord) -> dict[str, int]:
    return {"rowsIn": record.rows_in, "rowsOut": record.rows_out, "bytes": record.bytes}
