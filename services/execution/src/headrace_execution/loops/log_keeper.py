"""Stores what workers log: the lines in the artifact store, where they are in the database."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from headrace_artifacts.keys import LOGS, new_key, run_prefix
from headrace_artifacts.store import ArtifactError, ArtifactStore
from headrace_chassis import faults
from headrace_chassis.agents import Agent

from headrace_execution.domain.logs import ChunkEntry, LoggedAttempt, LogLimits, LogLine, entry, expendable
from headrace_execution.logs.encoding import dump_lines
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx

_log = structlog.get_logger(__name__)

BATCH = 100
CAPACITY = 1000
"""How many chunks wait at most. One that finds no room is sent again by its worker."""

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Logged:
    """A chunk as it came up a stream. `acknowledge` is called when it need not be sent again."""

    stage: UUID
    fence: int
    attempt: int
    sequence: int
    lines: tuple[LogLine, ...]
    acknowledge: Callable[[], None]

    @property
    def key(self) -> tuple[UUID, int]:
        """The attempt: its stage and fence."""
        return self.stage, self.fence


class LogKeeper(Agent):
    """Puts chunks into the artifact store, then into the index, then acknowledges them.

    If the process dies in between, the worker sends the chunk again and it is stored under another key: an
    object that the index does not name is nobody's, and goes with the others of its run. Of a long log the
    middle is removed.
    """

    name = "log_keeper"

    def __init__(self, store: Store, artifacts: ArtifactStore, signals: Signals, limits: LogLimits) -> None:
        self._store = store
        self._artifacts = artifacts
        self._signals = signals
        self._limits = limits
        self._waiting: dict[tuple[UUID, int], Logged] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def submit(self, logged: Logged) -> None:
        """Takes a chunk in: one an attempt, since a worker sends the next when the one before is stored."""
        if logged.key in self._waiting or len(self._waiting) < CAPACITY:
            self._waiting[logged.key] = logged
            self.wake()

    async def run_once(self) -> bool:
        """Stores one batch. What could not be stored is sent again by its worker."""
        batch = [self._waiting.pop(key) for key in list(self._waiting)[:BATCH]]
        if not batch:
            return False
        keys = [logged.key for logged in batch]
        places = await self._store.run(lambda tx: tx.logs.attempts(keys))
        fresh: list[tuple[Logged, LoggedAttempt]] = []
        for logged in batch:
            place = places.get(logged.key)
            if place is None or logged.sequence <= place.last or not logged.lines:
                logged.acknowledge()  # refused for good, or stored before
            else:
                fresh.append((logged, place))
        stored = await asyncio.gather(*(self._put(logged, place) for logged, place in fresh))
        await self._index([(logged, made) for (logged, _), made in zip(fresh, stored, strict=True) if made])
        return bool(self._waiting)

    async def _put(self, logged: Logged, place: LoggedAttempt) -> ChunkEntry | None:
        content = dump_lines(logged.lines)
        prefix = run_prefix(place.tenant, place.pipeline, place.run)
        key = new_key(prefix, LOGS, f"{logged.stage}-{logged.fence}-{logged.sequence}", "ndjson")
        try:
            async with self._gate:
                await asyncio.to_thread(self._artifacts.put, key, [content])
        except ArtifactError as error:
            _log.warning("a part of a log could not be stored", run=str(place.run), error=str(error))
            return None
        return entry(place, logged.attempt, logged.sequence, key, len(content), logged.lines, self._limits)

    async def _index(self, stored: Sequence[tuple[Logged, ChunkEntry]]) -> None:
        if not stored:
            return
        faults.point("execution.log.put")
        entries = [made for _, made in stored]
        costs = {
            (made.run, *made.key): cost
            for made in entries
            if not made.is_head and (cost := expendable(made, self._limits)) > self._limits.head
        }

        async def write(tx: Tx) -> tuple[frozenset[str], list[str]]:
            return await tx.logs.add(entries), await tx.logs.trim(costs)

        added, trimmed = await self._store.run(write)
        for logged, _ in stored:
            logged.acknowledge()
        self._signals.waiters.poke({made.run for made in entries})
        nobodys = [made.artifact for made in entries if made.artifact not in added]
        await self._remove([*trimmed, *nobodys])

    async def _remove(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        try:
            await asyncio.to_thread(self._artifacts.delete, keys)
        except ArtifactError as error:
            # They go with their run at the latest.
            _log.warning("parts of logs could not be removed", parts=len(keys), error=str(error))
