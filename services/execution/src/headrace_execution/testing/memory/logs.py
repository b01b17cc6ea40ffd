"""The index of logs in memory."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from headrace_execution.domain.changes import OutputLanding
from headrace_execution.domain.logs import ChunkEntry, LoggedAttempt, Note
from headrace_execution.store.port import LogIndex, RunPlace
from headrace_execution.testing.memory.data import Link, Transaction
from headrace_execution.testing.memory.tables import (
    LOG_CHUNKS,
    NOTES,
    OUTPUTS,
    RUN_OF_STAGE,
    RUNS,
    OutputRow,
)


class MemoryLogs:
    """The index of logs, in one transaction."""

    def __init__(self, tx: Transaction, link: Link) -> None:
        self._tx = tx
        self._link = link

    async def attempts(self, attempts: Collection[tuple[UUID, int]]) -> dict[tuple[UUID, int], LoggedAttempt]:
        """See the port."""
        await self._link.statement(self._tx)
        found: dict[tuple[UUID, int], LoggedAttempt] = {}
        for stage_id, fence in attempts:
            run_id = self._tx.get(RUN_OF_STAGE, stage_id)
            run = self._tx.get(RUNS, run_id) if run_id is not None else None
            stage = run.stage(stage_id) if run is not None else None
            if run is None or stage is None or not 1 <= fence <= stage.fence:
                continue
            place = LoggedAttempt(run.tenant, run.pipeline, run.id, stage_id, fence)
            for chunk in sorted(self._tx.rows(LOG_CHUNKS), key=lambda chunk: chunk.sequence):
                if chunk.key == place.key:
                    place = replace(
                        place, last=chunk.sequence, lines=chunk.lines_total, cost=chunk.cost_total
                    )
            found[place.key] = place
        return found

    async def add(self, entries: Sequence[ChunkEntry]) -> frozenset[str]:
        """See the port."""
        if not entries:
            return frozenset()
        await self._link.statement(self._tx)
        added = set()
        for entry in entries:
            key = (entry.run, entry.stage, entry.fence, entry.sequence)
            if self._tx.get(RUNS, entry.run) is None or await self._tx.lock(LOG_CHUNKS, key) is not None:
                continue
            self._tx.put(LOG_CHUNKS, key, entry)
            added.add(entry.artifact)
        return frozenset(added)

    async def trim(self, costs: Mapping[tuple[UUID, UUID, int], int]) -> list[str]:
        """See the port."""
        if not costs:
            return []
        await self._link.statement(self._tx)
        removed = [
            chunk
            for chunk in self._tx.rows(LOG_CHUNKS)
            if not chunk.is_head and chunk.cost_total <= costs.get((chunk.run, *chunk.key), -1)
        ]
        remove_chunks(self._tx, removed)
        return [chunk.artifact for chunk in removed]

    async def note(self, notes: Sequence[Note]) -> None:
        """See the port."""
        if not notes:
            return
        await self._link.statement(self._tx)
        for note in notes:
            position = self._tx.data.next("run_notes")
            self._tx.put(NOTES, (note.run, position), replace(note, position=position))

    async def landed(self, outputs: Sequence[OutputLanding]) -> None:
        """See the port."""
        if not outputs:
            return
        await self._link.statement(self._tx)
        for output in outputs:
            if self._tx.get(OUTPUTS, (output.run, output.sink)) is None:
                self._tx.put(OUTPUTS, (output.run, output.sink), OutputRow(output, self._tx.now))

    async def expired_logs(self, age: timedelta, limit: int) -> list[RunPlace]:
        """See the port."""
        await self._link.statement(self._tx)
        written = [(chunk.run, chunk.last_at) for chunk in self._tx.rows(LOG_CHUNKS)]
        written += [(note.run, note.line.time) for note in self._tx.rows(NOTES)]
        runs = {run.id: run for run in self._tx.rows(RUNS)}
        ids = _all_before(written, self._tx.now - age, limit)
        return [RunPlace(runs[run].tenant, runs[run].pipeline, run) for run in ids]

    async def expired_outputs(self, age: timedelta, limit: int) -> list[RunPlace]:
        """See the port."""
        await self._link.statement(self._tx)
        rows = self._tx.rows(OUTPUTS)
        places = {
            row.output.run: RunPlace(row.output.tenant, row.output.pipeline, row.output.run) for row in rows
        }
        ids = _all_before([(row.output.run, row.landed_at) for row in rows], self._tx.now - age, limit)
        return [places[run] for run in ids]

    async def forget_logs(self, runs: Collection[UUID]) -> None:
        """See the port."""
        await self._link.statement(self._tx)
        for run in runs:
            _forget_logs(self._tx, run)

    async def forget_outputs(self, runs: Collection[UUID]) -> None:
        """See the port."""
        await self._link.statement(self._tx)
        for run in runs:
            _forget_outputs(self._tx, run)


def _all_before(dated: Sequence[tuple[UUID, datetime]], limit_at: datetime, most: int) -> list[UUID]:
    """The runs all of whose dates are before a limit, the oldest first."""
    latest: dict[UUID, datetime] = {}
    for run, at in dated:
        latest[run] = max(at, latest.get(run, at))
    return sorted((run for run, at in latest.items() if at < limit_at), key=lambda run: latest[run])[:most]


def remove_chunks(tx: Transaction, chunks: Iterable[ChunkEntry]) -> None:
    """Removes entries."""
    for chunk in chunks:
        tx.put(LOG_CHUNKS, (chunk.run, chunk.stage, chunk.fence, chunk.sequence), None)


def purge_logs(tx: Transaction, run: UUID) -> None:
    """Removes all of a run."""
    _forget_logs(tx, run)
    _forget_outputs(tx, run)


def _forget_logs(tx: Transaction, run: UUID) -> None:
    remove_chunks(tx, [chunk for chunk in tx.rows(LOG_CHUNKS) if chunk.run == run])
    for note in [note for note in tx.rows(NOTES) if note.run == run]:
        tx.put(NOTES, (run, note.position), None)


def _forget_outputs(tx: Transaction, run: UUID) -> None:
    for row in [row for row in tx.rows(OUTPUTS) if row.output.run == run]:
        tx.put(OUTPUTS, (run, row.output.sink), None)


def index_of(tx: Transaction, run: UUID, after: Mapping[tuple[UUID, int], int], notes_after: int) -> LogIndex:
    """What there is beyond these places."""
    chunks = [c for c in tx.rows(LOG_CHUNKS) if c.run == run and c.sequence > after.get(c.key, -1)]
    notes = [n for n in tx.rows(NOTES) if n.run == run and n.position > notes_after]
    return LogIndex(
        tuple(sorted(chunks, key=lambda chunk: (*chunk.key, chunk.sequence))),
        tuple(sorted(notes, key=lambda note: note.position)),
    )
