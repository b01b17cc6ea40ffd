"""Reads the runs that are watched in this process when they change, and shows them to those who watch."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import contextmanager
from uuid import UUID

from headrace_chassis.agents import Agent
from headrace_chassis.errors import NotFound, Unauthenticated, Unavailable
from headrace_chassis.identity import LEEWAY_SECONDS, Principal
from headrace_chassis.slots import StreamSlots

from headrace_execution.domain.run import Run
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store
from headrace_execution.visibility import visible_run
from headrace_execution.watching.feed import RunFeed
from headrace_execution.watching.interest import REPEATED_SECONDS, Interest

READS_AT_ONCE = 4
"""So that watching many runs leaves connections of the database to the work itself."""


class RunWatcher(Agent):
    """Keeps a feed for each run that somebody watches here.

    A commit of this replica tells it at once, one of another replica by the bus where somebody watches; and
    it looks at the revisions of all watched runs every so often, in one statement. Where nobody watches, it
    does nothing.
    """

    name = "run_watcher"
    interval_seconds = 1.0

    def __init__(self, store: Store, signals: Signals, interest: Interest, slots: StreamSlots) -> None:
        self._store = store
        self._signals = signals
        self._interest = interest
        self._slots = slots
        self._feeds: dict[UUID, RunFeed] = {}
        self._stale: set[UUID] = set()
        self._looked_at = float("-inf")
        self._said_at = float("-inf")
        self._draining = False
        signals.watch(self.changed, self.heard)

    @property
    def watched(self) -> int:
        """How many runs are watched here."""
        return len(self._feeds)

    async def follow(self, principal: Principal, run_id: UUID) -> AsyncGenerator[Run, None]:
        """Yields a run as it stands, then again after each change, up to its final state.

        Raises NotFound, Unavailable when this replica goes away, Unauthenticated when the caller's token
        expires, and RATE_LIMITED where the caller watches too many runs.
        """
        bound = principal.bound_to
        if bound is not None and bound.object != str(run_id):
            raise NotFound("run", run_id)
        give_back = self._slots.take((principal.tenant, principal.subject))
        try:
            run = await visible_run(self._store, principal, run_id)
            with self._feed(run) as feed:
                revision = -1
                while True:
                    run = await _until_expiry(feed, revision, principal.expires_at)
                    yield run
                    if run.is_final:
                        return
                    revision = run.revision
        finally:
            give_back()

    @contextmanager
    def _feed(self, run: Run) -> Iterator[RunFeed]:
        if self._draining:
            raise Unavailable("this replica")
        run_id = run.id
        feed = self._feeds.get(run_id)
        if feed is None:
            feed = self._feeds[run_id] = RunFeed(run)
            self._signals.say(self._interest.watched_words([run_id]))
            # What has changed since it was read was told to nobody here: it is read again.
            self._stir([run_id])
        feed.offer(run)
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                del self._feeds[run_id]
                self._stale.discard(run_id)

    def changed(self, runs: Collection[UUID]) -> None:
        """These runs were changed by a commit of this replica."""
        if self._feeds:
            self._stir(runs)
        if self._interest:
            told = self._interest.among(runs)
            if told:
                self._signals.say(self._interest.changed_words(told))

    def heard(self, word: bytes) -> None:
        """Another replica said this; nothing means that words may have been missed."""
        if not word:
            self._stir(list(self._feeds))
            self._said_at = float("-inf")
            return
        begun, changed = self._interest.hear(word)
        if begun:
            # It may have read them before this replica's last commit, and then not have been told of that.
            self._signals.say(self._interest.changed_words(begun))
        self._stir(changed)

    def _stir(self, runs: Collection[UUID]) -> None:
        watched = [run for run in runs if run in self._feeds]
        if watched:
            self._stale.update(watched)
            self.wake()

    async def run_once(self) -> bool:
        """Reads what has changed, or may have."""
        now = asyncio.get_running_loop().time()
        self._interest.forget_stale()
        if not self._feeds:
            return False
        if now - self._said_at >= REPEATED_SECONDS:
            self._said_at = now
            self._signals.say(self._interest.watched_words(list(self._feeds)))
        if now - self._looked_at >= self.interval_seconds:
            self._looked_at = now
            await self._look()
        stale = list(self._stale)[:READS_AT_ONCE]
        self._stale.difference_update(stale)
        try:
            await asyncio.gather(*(self._read(run_id) for run_id in stale))
        except BaseException:
            self._stale.update(stale)
            raise
        return bool(self._stale)

    async def _look(self) -> None:
        """Finds the runs that have changed without a word."""
        revisions = await self._store.revisions(list(self._feeds))
        for run_id, feed in self._feeds.items():
            if revisions.get(run_id) != feed.order:
                self._stale.add(run_id)

    async def _read(self, run_id: UUID) -> None:
        feed = self._feeds.get(run_id)
        if feed is None:
            return
        run = await self._store.get(feed.tenant, run_id)
        if run is None:
            feed.end(NotFound("run", run_id))
        else:
            feed.offer(run)

    async def drain(self) -> None:
        """Ends all watches, so that they are taken up elsewhere, and takes no more."""
        self._draining = True
        for feed in self._feeds.values():
            feed.end(Unavailable("this replica"))


async def _until_expiry(feed: RunFeed, revision: int, expires_at: float) -> Run:
    scope = asyncio.timeout(max(expires_at + LEEWAY_SECONDS - time.time(), 0.0))
    try:
        async with scope:
            return (await feed.after(revision))[1]
    except TimeoutError:
        raise Unauthenticated("the token has expired") from None
