"""Reading the log of a run: what its attempts have logged, execution's own notes, and the run's course, by
time.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from uuid import UUID

from headrace_artifacts.store import ArtifactMissing, ArtifactStore, read_all

from headrace_execution.domain.logs import ChunkEntry, Level, LogLine, gap
from headrace_execution.domain.notes import course
from headrace_execution.domain.run import Run
from headrace_execution.logs.encoding import load_lines
from headrace_execution.signals import Signals
from headrace_execution.store.port import LogIndex, Store

POLL_SECONDS = 0.5
"""How often a log that is followed is looked at; chunks that this replica has stored are seen at once."""

LINGER_SECONDS = 2.0
"""How long a follower waits, after the end of the run, for what its workers have logged last."""

_AT_ONCE = 8
_LARGEST_CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest lines of a run, by time."""

    lines: list[LogLine]
    has_earlier: bool


@dataclass(slots=True)
class _Known:
    """What a follower has been told."""

    chunks: dict[tuple[UUID, int], ChunkEntry] = field(default_factory=dict)
    """The last chunk of each attempt."""
    note: int = 0
    course: set[tuple[str, str, int]] = field(default_factory=set)

    def note_index(self, index: LogIndex) -> None:
        """It is told all of this."""
        self.chunks.update({chunk.key: chunk for chunk in index.chunks})
        if index.notes:
            self.note = index.notes[-1].position

    def fresh(self, lines: Iterable[LogLine]) -> list[LogLine]:
        """Those lines of the run's course that it was not told yet, which it is told now."""
        fresh = [line for line in lines if (line.task, line.message, line.attempt) not in self.course]
        self.course.update((line.task, line.message, line.attempt) for line in fresh)
        return fresh


class LogReader:
    """Reads the logs of runs whose reader may see them."""

    def __init__(self, store: Store, artifacts: ArtifactStore, signals: Signals) -> None:
        self._store = store
        self._artifacts = artifacts
        self._signals = signals

    async def latest(self, run: Run, task: str, most: int) -> Latest:
        """The latest lines. Raises ArtifactError."""
        return await self._latest(run, task, most, _Known())

    async def follow(self, run: Run, task: str, most: int) -> AsyncGenerator[LogLine, None]:
        """The latest lines, then new ones until the run has ended and all that was on its way has come.

        Raises ArtifactError.
        """
        known = _Known()
        changed = self._signals.waiters.wait_for(run.id)
        quiet_since: float | None = None
        clock = asyncio.get_running_loop().time
        try:
            for line in (await self._latest(run, task, most, known)).lines:
                yield line
            while True:
                await _rest(changed)
                changed.clear()
                after = {key: chunk.sequence for key, chunk in known.chunks.items()}
                found = await self._store.get(run.tenant, run.id)
                if found is None:
                    return  # purged
                run = found
                index = await self._store.log_index(run.id, after=after, notes_after=known.note)
                if run.is_final:
                    quiet_since = clock() if quiet_since is None or index.chunks else quiet_since
                ended = quiet_since is not None and clock() - quiet_since >= LINGER_SECONDS
                for line in await self._news(run, task, index, known, ended=ended):
                    yield line
                if ended:
                    return
        finally:
            self._signals.waiters.leave(run.id, changed)

    async def _latest(self, run: Run, task: str, most: int, known: _Known) -> Latest:
        index = await self._store.log_index(run.id, after={}, notes_after=0)
        logged = {chunk.stage for chunk in index.chunks}
        lines = [note.line for note in index.notes]
        # The tasks of a live run may yet be told of by the lines of their attempts.
        lines += known.fresh(line for line in course(run, logged) if run.is_final or not line.task)
        lines += _gaps(index.chunks, {})
        lines = [line for line in lines if not task or line.task == task]
        wanted = [chunk for chunk in index.chunks if not task or task in chunk.tasks]
        wanted.sort(key=lambda chunk: chunk.last_at, reverse=True)
        skipped = False
        for start in range(0, len(wanted), _AT_ONCE):
            group = wanted[start : start + _AT_ONCE]
            if len(lines) >= most and group[0].last_at < _by_time(lines)[-most].time:
                skipped = True
                break
            lines += await self._read(group, task)
        known.note_index(index)
        return Latest(_by_time(lines)[-most:], skipped or len(lines) > most)

    async def _news(
        self, run: Run, task: str, index: LogIndex, known: _Known, *, ended: bool
    ) -> list[LogLine]:
        lines = [note.line for note in index.notes] + _gaps(index.chunks, known.chunks)
        lines = [line for line in lines if not task or line.task == task]
        for start in range(0, len(index.chunks), _AT_ONCE):
            lines += await self._read(index.chunks[start : start + _AT_ONCE], task)
        known.note_index(index)
        logged = {stage for stage, _ in known.chunks}
        told = course(run, logged) if ended else course_until_end(run)
        fresh = known.fresh(told)
        return _by_time(lines + [line for line in fresh if not task or line.task == task])

    async def _read(self, chunks: Sequence[ChunkEntry], task: str) -> list[LogLine]:
        parts = await asyncio.gather(*(asyncio.to_thread(self._content, chunk) for chunk in chunks))
        return [line for part in parts for line in part if not task or line.task == task]

    def _content(self, chunk: ChunkEntry) -> list[LogLine]:
        try:
            return load_lines(read_all(self._artifacts, chunk.artifact, _LARGEST_CHUNK))
        except ArtifactMissing:
            return []  # left out of a long log, or removed with its run, since the index was read


def course_until_end(run: Run) -> list[LogLine]:
    """The run's own course without its end and without its tasks, of which attempts may yet tell."""
    lines = [line for line in course(run, frozenset()) if not line.task]
    return lines[:-1] if run.is_final else lines


def _gaps(chunks: Sequence[ChunkEntry], known: dict[tuple[UUID, int], ChunkEntry]) -> list[LogLine]:
    """A line for each place where the middle of a long log was left out."""
    found = []
    for key, group in groupby(chunks, key=lambda chunk: chunk.key):
        before = known.get(key)
        for chunk in group:
            if missing := gap(before, chunk):
                message = f"{missing} lines are left out here: of a long log, the middle is not kept"
                found.append(LogLine(chunk.first_at, Level.WARNING, message, attempt=chunk.attempt))
            before = chunk
    return found


def _by_time(lines: list[LogLine]) -> list[LogLine]:
    return sorted(lines, key=lambda line: line.time)


async def _rest(changed: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(POLL_SECONDS):
            await changed.wait()
    except TimeoutError:
        return
