"""Reading a service's log: once for all that follow it."""

from collections import deque
from collections.abc import Collection
from itertools import islice, takewhile
from typing import Any, NamedTuple

from google.protobuf import timestamp_pb2
from headrace.common.v1 import event_log_pb2

from headrace_chassis.database import Database, driver

DEFAULT_LIMIT = 500

WINDOW = 10_000
"""How many positions one call looks at, at the most: a rare type must not make a call read the whole log."""

MOST_KEPT = 2000
"""How many of the newest events are kept."""
MOST_BYTES_KEPT = 4 << 20
"""How large their payloads may be together."""

# One statement is one snapshot: the head must not be newer than the events, or a reader would pass over some.
_LIST = """
WITH head AS (SELECT position AS head, pruned FROM outbox_head),
page AS (
    SELECT position, event_id, type, tenant, subject, data, traceparent, created_at
    FROM outbox_event
    WHERE position > $1 AND position <= $1 + $4 AND ($3::text[] = '{}' OR type = ANY ($3::text[]))
    ORDER BY position LIMIT $2
)
SELECT head.head, head.pruned, page.* FROM head LEFT JOIN page ON true ORDER BY page.position
"""


class _Kept(NamedTuple):
    position: int
    type: str
    event: event_log_pb2.Event


class _Page(NamedTuple):
    head: int
    oldest: int
    events: list[_Kept]


class EventLog:
    """The outbox of one database, as one process reads it.

    Several follow a log, each for some types and at its own pace: without this, each event was read and made
    into a message once for each of them. The newest ones are therefore kept, as they were read. An answer
    still tells what is in the database now: every read asks it for what has come since the last one, of
    whichever reader. Positions have no gaps and events never change, so what is kept cannot be out of date.
    """

    def __init__(
        self, db: Database, *, most_kept: int = MOST_KEPT, most_bytes_kept: int = MOST_BYTES_KEPT
    ) -> None:
        self._db = db
        self._most_kept = most_kept
        self._most_bytes_kept = most_bytes_kept
        self._kept: deque[_Kept] = deque()
        self._bytes = 0
        self._span: tuple[int, int] | None = None
        """All events behind the first position, up to the second, are kept; None before the first read."""

    async def read(
        self, after: int, limit: int = 0, types: Collection[str] = ()
    ) -> event_log_pb2.ListEventsResponse:
        """Returns events of some types, or of all, after a position, and where to go on.

        Raises Unavailable when the database is away.
        """
        limit = limit or DEFAULT_LIMIT
        oldest = await self._catch_up(after)
        if oldest is not None and self._span is not None and self._span[0] <= after:
            events, end = self._newer(after, limit, types), self._span[1]
        else:
            page = await self._page(after, limit, types)
            if self._span is None:
                self._span = (page.head, page.head)
            events, end, oldest = page.events, min(page.head, after + WINDOW), page.oldest
        looked_at = events[-1].position if len(events) == limit else end
        return event_log_pb2.ListEventsResponse(
            events=[kept.event for kept in events], next_after=max(looked_at, after), oldest=oldest
        )

    async def _catch_up(self, after: int) -> int | None:
        """Keeps what is new. Returns the oldest position of the log; None where what is kept does not reach
        from `after` to the end of the log."""
        if self._span is None or after < self._span[0]:
            return None
        end = self._span[1]
        last = self._kept[-1] if self._kept else None
        page = await self._page(end if last is None else last.position - 1, DEFAULT_LIMIT, ())
        if self._span is None or self._span[1] < end:
            return None  # another read has found what the next lines look for
        if page.head < end or (last is not None and (not page.events or page.events[0] != last)):
            # A backup was restored, or the last one was pruned: what is kept may be of another history.
            self._kept.clear()
            self._span, self._bytes = None, 0
            return None
        self._keep(page)
        # A full page may not be all: whoever asks then asks for itself, and what is kept catches up in time.
        return page.oldest if len(page.events) < DEFAULT_LIMIT else None

    def _keep(self, page: _Page) -> None:
        """Adds what is new; another read may have kept some of it meanwhile."""
        if self._span is None:
            return
        first, end = self._span
        for kept in page.events:
            if kept.position > end:
                self._kept.append(kept)
                self._bytes += len(kept.event.data)
        end = max(end, page.head if len(page.events) < DEFAULT_LIMIT else page.events[-1].position)
        while len(self._kept) > self._most_kept or self._bytes > self._most_bytes_kept:
            gone = self._kept.popleft()
            self._bytes -= len(gone.event.data)
            first = gone.position
        self._span = (first, end)

    def _newer(self, after: int, limit: int, types: Collection[str]) -> list[_Kept]:
        behind = list(takewhile(lambda kept: kept.position > after, reversed(self._kept)))
        wanted = (kept for kept in reversed(behind) if not types or kept.type in types)
        return list(islice(wanted, limit))

    async def _page(self, after: int, limit: int, types: Collection[str]) -> _Page:
        async with self._db.read() as conn:
            rows = await driver(conn).fetch(_LIST, after, limit, list(types), WINDOW)
        events = [_kept(row) for row in rows if row["position"] is not None]
        return _Page(rows[0]["head"], rows[0]["pruned"] + 1, events)


def _kept(row: Any) -> _Kept:
    time = timestamp_pb2.Timestamp()
    time.FromDatetime(row["created_at"])
    event = event_log_pb2.Event(
        position=row["position"],
        id=str(row["event_id"]),
        type=row["type"],
        tenant=str(row["tenant"]),
        subject=row["subject"],
        time=time,
        data=row["data"],
        traceparent=row["traceparent"],
    )
    return _Kept(event.position, event.type, event)
