"""Locks that transactions hold to their end."""

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field


class Deadlock(Exception):  # noqa: N818 - it names a fact
    """Transactions wait for one another in a circle; this one was chosen to give way."""


class Holder:
    """Who holds locks: a transaction."""

    def __init__(self) -> None:
        self.held: dict[Hashable, bool] = {}
        """Its locks, and whether each is shared."""
        self.waits_for: Hashable | None = None


@dataclass(slots=True)
class _Lock:
    holders: dict[Holder, bool] = field(default_factory=dict)
    queue: deque[tuple[Holder, bool, "asyncio.Future[None]"]] = field(default_factory=deque)

    def admits(self, holder: Holder, shared: bool) -> bool:
        others = [theirs for other, theirs in self.holders.items() if other is not holder]
        return not others or (shared and all(others))


class LockTable:
    """Locks by name, exclusive or shared, granted in the order in which they were asked for."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, _Lock] = {}

    def try_take(self, holder: Holder, name: Hashable, *, shared: bool = False) -> bool:
        """Takes a lock unless somebody else has it or waits for it; returns whether it is held now."""
        if name in holder.held and (shared or not holder.held[name]):
            return True
        lock = self._locks.setdefault(name, _Lock())
        if lock.queue or not lock.admits(holder, shared):
            return False
        self._grant(lock, holder, name, shared)
        return True

    async def take(self, holder: Holder, name: Hashable, *, shared: bool = False) -> None:
        """Takes a lock, waiting for it if need be. Raises Deadlock."""
        if self.try_take(holder, name, shared=shared):
            return
        lock = self._locks[name]
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (holder, shared, granted)
        lock.queue.append(entry)
        holder.waits_for = name
        try:
            if self._is_circular(holder):
                raise Deadlock(name)
            await granted
        except BaseException:
            if entry in lock.queue:
                lock.queue.remove(entry)
                self._admit(name, lock)
            raise
        finally:
            holder.waits_for = None

    def dismiss(self, holder: Holder, error: Exception) -> None:
        """Has somebody who waits for a lock wait no longer."""
        if holder.waits_for is not None:
            for waiting, _, granted in self._locks[holder.waits_for].queue:
                if waiting is holder and not granted.done():
                    granted.set_exception(error)

    def release(self, holder: Holder) -> None:
        """Lets all of somebody's locks go."""
        for name in list(holder.held):
            lock = self._locks[name]
            del lock.holders[holder]
            self._admit(name, lock)
        holder.held.clear()

    def _admit(self, name: Hashable, lock: _Lock) -> None:
        while lock.queue:
            holder, shared, granted = lock.queue[0]
            if granted.done():
                lock.queue.popleft()
                continue
            if not lock.admits(holder, shared):
                return
            lock.queue.popleft()
            self._grant(lock, holder, name, shared)
            granted.set_result(None)
        if not lock.holders:
            self._locks.pop(name, None)

    @staticmethod
    def _grant(lock: _Lock, holder: Holder, name: Hashable, shared: bool) -> None:
        lock.holders[holder] = shared
        holder.held[name] = shared

    def _is_circular(self, holder: Holder) -> bool:
        seen: set[int] = set()
        waiting = [holder]
        while waiting:
            name = waiting.pop().waits_for
            if name is None:
                continue
            lock = self._locks[name]
            ahead = [*lock.holders, *(other for other, _, _ in lock.queue)]
            for other in ahead:
                if other is holder and holder.waits_for != name:
                    return True
                if id(other) not in seen:
                    seen.add(id(other))
                    waiting.append(other)
        return False
