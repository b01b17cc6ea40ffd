"""When a schedule starts runs: cron, then the calendar, then maintenance, then what was missed.

A *tick* is an instant at which the cron expression fires; it is the identity of a run, whenever that starts.
The calendar leaves out ticks by their date in the schedule's zone. A tick in a maintenance window is held;
when the window is over, the catch-up strategy decides on all that were held, as it does on ticks that were
missed while the schedule was paused or nothing could run.

The cost of each function follows what it yields, and not the length of the time it looks over: days that are
left out are passed over at once, and the latest of many missed ticks are looked for from the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from itertools import islice
from zoneinfo import ZoneInfo

from headrace_timetable.calendars import Calendar, Exclusion, Reason
from headrace_timetable.clock_changes import first_instant, last_instant
from headrace_timetable.cron import CronExpression
from headrace_timetable.ticks import last_tick, previous_tick, ticks
from headrace_timetable.ticks import latest as latest_of
from headrace_timetable.windows import Windows

_INSTANT = timedelta(microseconds=1)
_MOST_IN_VAIN = 400
"""A schedule that is left out on so many of its days in a row, or held in so many windows, never fires."""
_FARTHEST = timedelta(days=60 * 365)
"""How long a schedule may go without a run: as far as ticks are looked for, and not beyond the years whose
holidays are known."""
_PAGE = 500


class CatchUpStrategy(StrEnum):
    """What becomes of ticks that were missed."""

    SKIP_TO_CURRENT = "SKIP_TO_CURRENT"
    """None of them runs. The latest one does if it is due no longer than the grace, and was not held."""
    RUN_ALL = "RUN_ALL"
    """All of them run, in their order."""
    RUN_LATEST_N = "RUN_LATEST_N"
    """The last N of them run."""


@dataclass(frozen=True, slots=True)
class CatchUp:
    """A strategy, with the N of RUN_LATEST_N. Raises ValueError where one lacks or has it wrongly."""

    strategy: CatchUpStrategy = CatchUpStrategy.SKIP_TO_CURRENT
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.strategy is CatchUpStrategy.RUN_LATEST_N:
            if self.limit is None or self.limit < 1:
                raise ValueError("RUN_LATEST_N needs a limit of at least 1")
        elif self.limit is not None:
            raise ValueError("a limit is for RUN_LATEST_N alone")


@dataclass(frozen=True, slots=True)
class Timetable:
    """All rules of one schedule."""

    expression: CronExpression
    zone: ZoneInfo
    calendar: Calendar = field(default_factory=Calendar)
    windows: Windows = field(default_factory=Windows)
    catch_up: CatchUp = field(default_factory=CatchUp)


@dataclass(frozen=True, slots=True)
class Run:
    """A tick that starts a run."""

    tick: datetime
    starts_at: datetime
    """The tick; or the end of the maintenance that holds it."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A tick that starts none; or all ticks from one to another."""

    first: datetime
    last: datetime
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of the ticks up to an instant."""

    entries: tuple[Run | Skip, ...]
    until: datetime
    """All ticks up to here are decided. Earlier than what was asked for where maintenance goes on, or where
    there are more ticks than were to be decided at once."""

    @property
    def runs(self) -> tuple[datetime, ...]:
        """The ticks that run."""
        return tuple(entry.tick for entry in self.entries if isinstance(entry, Run))


def interval_of(timetable: Timetable, tick: datetime) -> tuple[datetime, datetime]:
    """The logical interval of a tick: from the previous tick up to it, whatever rules leave out.

    A first tick, which has none before it, begins its interval at the start of 1970.
    """
    previous = previous_tick(timetable.expression, timetable.zone, tick)
    return previous or datetime(1970, 1, 1, tzinfo=UTC), tick


def exclusion_of(timetable: Timetable, tick: datetime) -> Exclusion | None:
    """Why the calendar leaves a tick out; None where it counts."""
    return timetable.calendar.exclusion(tick.astimezone(timetable.zone).date())


def maintenance_end(timetable: Timetable, instant: datetime) -> datetime | None:
    """When maintenance that goes on at an instant is over; None where none does."""
    return timetable.windows.end_at(instant, timetable.zone)


def walk(timetable: Timetable, after: datetime, until: datetime | None = None) -> Iterator[datetime | Skip]:
    """The ticks later than an instant that the calendar lets pass, and between them, a day each, those that
    it leaves out. Ends at `until` (inclusive), or where nothing ever passes."""
    excluded_days = 0
    position = after
    while excluded_days < _MOST_IN_VAIN:
        for tick in ticks(timetable.expression, timetable.zone, position):
            if until is not None and tick > until:
                return
            exclusion = exclusion_of(timetable, tick) if timetable.calendar.excludes_some else None
            if exclusion is not None:
                break
            excluded_days = 0
            yield tick
        else:
            return
        excluded_days += 1
        day_end = _end_of_day(timetable.zone, tick) - _INSTANT
        position = day_end if until is None else min(day_end, until)
        yield Skip(tick, _last(timetable, tick, position), exclusion.reason, exclusion.detail)


def latest(timetable: Timetable, after: datetime, until: datetime, count: int) -> list[datetime]:
    """The last `count` ticks in (after, until] that the calendar lets pass, in their order."""

    def passing(begin: datetime) -> Iterator[datetime]:
        return (entry for entry in walk(timetable, begin, until) if isinstance(entry, datetime))

    return latest_of(passing, after, until, count)


def decide(
    timetable: Timetable,
    after: datetime,
    now: datetime,
    *,
    grace: timedelta,
    catch_up: CatchUp | None = None,
    at_once: int = _PAGE,
) -> Decided:
    """What becomes of the ticks in (after, now], at most about `at_once` of them.

    `grace` is how late the latest tick may be started under SKIP_TO_CURRENT; `catch_up` stands in for the
    strategy of the timetable. Where more ticks were missed than are looked at at once, those that a strategy
    does not choose are one skip.
    """
    if maintenance_end(timetable, now) is not None:
        return Decided((), after)
    strategy = catch_up or timetable.catch_up
    entries = list(islice(walk(timetable, after, now), at_once + 1))
    if strategy.strategy is CatchUpStrategy.RUN_ALL:
        more = len(entries) > at_once
        entries = entries[:at_once]
        until = _end_of(entries[-1]) if more else now
        return Decided(tuple(_run(timetable, entry) for entry in entries), until)
    count = strategy.limit or 1
    if len(entries) > at_once:
        entries = list(_summary(timetable, after, now, strategy))
    ticks = [entry for entry in entries if isinstance(entry, datetime)]
    chosen = set(ticks[-count:])
    if strategy.strategy is CatchUpStrategy.SKIP_TO_CURRENT:
        chosen = {tick for tick in chosen if now - tick <= grace and maintenance_end(timetable, tick) is None}
    return Decided(
        tuple(
            _run(timetable, entry)
            if isinstance(entry, Skip) or entry in chosen
            else _passed_over(timetable, entry, strategy)
            for entry in entries
        ),
        now,
    )


def upcoming(
    timetable: Timetable, after: datetime, *, decided_until: datetime | None = None
) -> Iterator[Run | Skip]:
    """What happens later than an instant, in order: runs, and ticks that start none, with their reasons.

    With `decided_until`, also what becomes of earlier ticks that are not decided yet because maintenance
    goes on at that instant. Ends where no run starts within sixty years, or where hundreds of days or windows
    in a row start nothing.
    """
    in_vain = 0
    position: datetime | None = after
    held_until = None if decided_until is None else maintenance_end(timetable, after)
    if decided_until is not None and held_until is not None:
        yield from _held(timetable, decided_until, held_until)
        position = held_until
    latest_run = position or after
    while position is not None:
        begin, position = position, None
        for entry in walk(timetable, begin):
            in_vain += 1
            first = _first_of(entry)
            end = maintenance_end(timetable, entry) if isinstance(entry, datetime) else None
            items = iter([_run(timetable, entry)]) if end is None else _held(timetable, first - _INSTANT, end)
            if in_vain >= _MOST_IN_VAIN or first - latest_run > _FARTHEST:
                return
            for item in items:
                if isinstance(item, Run):
                    in_vain, latest_run = 0, item.tick
                yield item
            if end is not None:
                position = end
                break


def next_runs(timetable: Timetable, after: datetime, limit: int) -> list[Run]:
    """The next `limit` runs; fewer where there are no more."""
    return list(islice((entry for entry in upcoming(timetable, after) if isinstance(entry, Run)), limit))


def next_start(
    timetable: Timetable, after: datetime, *, decided_until: datetime | None = None
) -> datetime | None:
    """When the next run starts, as `upcoming` has it; None where there is none."""
    if timetable.catch_up.strategy is CatchUpStrategy.SKIP_TO_CURRENT:
        entries = upcoming(timetable, after, decided_until=decided_until)
        return next((entry.starts_at for entry in entries if isinstance(entry, Run)), None)
    # Whichever of them it chooses, it catches up on some of the ticks that maintenance holds, at its end.
    end = maintenance_end(timetable, after)
    begin = after if decided_until is None or end is None else decided_until
    for entry in walk(timetable, begin):
        if _first_of(entry) - begin > _FARTHEST:
            return None
        if isinstance(entry, datetime):
            held = end if end is not None and entry <= end else maintenance_end(timetable, entry)
            return held or entry
    return None


def _held(timetable: Timetable, after: datetime, end: datetime) -> Iterator[Run | Skip]:
    """What becomes of the ticks that maintenance holds until its end, and of one at its end."""
    while after < end:
        decided = decide(timetable, after, end, grace=timedelta())
        for entry in decided.entries:
            yield replace(entry, starts_at=end) if isinstance(entry, Run) else entry
        after = decided.until


def _summary(
    timetable: Timetable, after: datetime, now: datetime, catch_up: CatchUp
) -> Iterator[datetime | Skip]:
    """The last ticks, with what the calendar leaves out after them, and all before them as one skip; as two
    where maintenance held the first of them."""
    kept = latest(timetable, after, now, catch_up.limit or 1)
    last = kept[0] - _INSTANT if kept else now
    first = next(ticks(timetable.expression, timetable.zone, after))
    if first <= last:
        yield from _not_chosen(timetable, first, last, catch_up)
    if kept:
        yield from walk(timetable, last, now)


def _not_chosen(
    timetable: Timetable, first: datetime, last: datetime, catch_up: CatchUp
) -> Iterator[datetime | Skip]:
    end = maintenance_end(timetable, first)
    if end is not None:
        held = _last(timetable, first, min(last, end - _INSTANT))
        yield Skip(first, held, Reason.MAINTENANCE_WINDOW, _chosen(catch_up))
        first = next(ticks(timetable.expression, timetable.zone, held), last + _INSTANT)
    if first <= last:
        yield Skip(first, _last(timetable, first, last), Reason.CATCH_UP, _chosen(catch_up))


def _run(timetable: Timetable, entry: datetime | Skip) -> Run | Skip:
    if isinstance(entry, Skip):
        return entry
    return Run(entry, maintenance_end(timetable, entry) or entry)


def _passed_over(timetable: Timetable, tick: datetime, catch_up: CatchUp) -> Skip:
    held = maintenance_end(timetable, tick) is not None
    return Skip(tick, tick, Reason.MAINTENANCE_WINDOW if held else Reason.CATCH_UP, _chosen(catch_up))


def _chosen(catch_up: CatchUp) -> str:
    return f"catch-up is {catch_up.strategy}" + (f" ({catch_up.limit})" if catch_up.limit else "")


def _last(timetable: Timetable, first: datetime, until: datetime) -> datetime:
    """The last tick up to an instant, of those from `first` on."""
    before = first - _INSTANT
    return last_tick(timetable.expression, timetable.zone, before, until) or first


def _first_of(entry: datetime | Skip) -> datetime:
    return entry.first if isinstance(entry, Skip) else entry


def _end_of(entry: datetime | Skip) -> datetime:
    return entry.last if isinstance(entry, Skip) else entry


def _end_of_day(zone: ZoneInfo, instant: datetime) -> datetime:
    following = instant.astimezone(zone).date()
    while True:
        following += timedelta(days=1)
        midnight = datetime.combine(following, time())
        # A clock may go back over midnight, or skip a day: the end is past the instant in any case.
        for end in (first_instant(zone, midnight), last_instant(zone, midnight)):
            if end > instant:
                return end
