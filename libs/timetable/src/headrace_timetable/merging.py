"""The runs of many timetables, in one order, without computing those of each."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import heappop, heappush
from typing import TypeVar

from headrace_timetable.rules import Run, Skip, Timetable, upcoming

K = TypeVar("K")


def in_order(
    sources: Iterable[tuple[K, Timetable, datetime, datetime | None]], after: datetime, *, skips: bool = False
) -> Iterator[tuple[K, Run | Skip]]:
    """The runs, and on request the skips, of many timetables later than an instant.

    Each source is its key, its timetable, an instant before which nothing happens in it (its next tick, as
    stored), and up to when its ticks are decided where maintenance holds some now; sources come in the order
    of the instants. One is only opened when its turn has come, so that taking n entries opens about n of
    them, however many there are.
    """
    waiting = iter(sources)
    ahead = next(waiting, None)
    heap: list[tuple[datetime, int, K, Run | Skip, Iterator[Run | Skip]]] = []
    opened = 0
    while heap or ahead is not None:
        if ahead is not None and (not heap or ahead[2] <= heap[0][0]):
            key, timetable, _, decided_until = ahead
            entries = upcoming(timetable, after, decided_until=decided_until)
            following = entries if skips else (entry for entry in entries if isinstance(entry, Run))
            if (entry := next(following, None)) is not None:
                heappush(heap, (_at(entry), opened, key, entry, following))
                opened += 1
            ahead = next(waiting, None)
            continue
        _, place, key, entry, following = heappop(heap)
        yield key, entry
        if (entry_after := next(following, None)) is not None:
            heappush(heap, (_at(entry_after), place, key, entry_after, following))


def _at(entry: Run | Skip) -> datetime:
    return entry.first if isinstance(entry, Skip) else entry.starts_at
