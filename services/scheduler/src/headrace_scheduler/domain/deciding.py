"""What becomes of the ticks of a schedule whose time has come. Pure: the same progress and the same instant
give the same decisions, on any replica."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from headrace_timetable import rules
from headrace_timetable.rules import Timetable

from headrace_scheduler.domain.schedules import Catchup, Overlap, Progress, Schedule, Terms
from headrace_scheduler.domain.timing import MOST_CAUGHT_UP, catch_up_of, timetable_of

MOST_TOLD_APART = 100
"""How many skipped ticks get a decision each; where more were missed, those before the ones that run get one
together."""

_MISSED = "CATCH_UP"


@dataclass(frozen=True)
class DecidedTick:
    """A tick that is going to start a run, or one or more that do not."""

    at: datetime
    through: datetime
    """The last of several ticks that are skipped together, else the tick."""
    interval_start: datetime
    overlap: Overlap | None
    """How its run stands to earlier ones of the schedule; None where it starts none."""
    queue_limit: int = 0
    """How many runs may wait behind one another with QUEUE."""
    reason: str | None = None
    message: str | None = None

    @property
    def starts(self) -> bool:
        """Whether it is going to start a run."""
        return self.overlap is not None

    @property
    def is_missed(self) -> bool:
        """Whether it passes without a run because nothing decided it in time."""
        return self.reason == _MISSED


@dataclass(frozen=True)
class Outcome:
    """The ticks that were decided, and the progress after that."""

    ticks: tuple[DecidedTick, ...]
    progress: Progress


def decide(schedule: Schedule, now: datetime, grace: timedelta) -> Outcome:
    """Decides all ticks up to now that are not decided yet; none while maintenance goes on.

    `grace` is how late the latest tick may be and still start its run with SKIP_TO_CURRENT.
    """
    plan = timetable_of(schedule)
    progress = schedule.progress
    if now <= progress.decided_until:
        # The clock went back: what is decided stays so, and the rest is not due yet.
        return Outcome((), resumed_progress(schedule, now))
    if rules.maintenance_end(plan, now) is not None:
        return Outcome((), resumed_progress(schedule, now))
    entries: list[rules.Run | rules.Skip] = []
    after = progress.decided_until
    reprieve = progress.reprieve
    reason: str | None = None
    if reprieve is not None and reprieve.until > after:
        until = min(reprieve.until, now)
        if rules.maintenance_end(plan, until) is not None:
            until = now  # they were held on top of it: what was said of them goes for all until now
        found = _decided(plan, after, until, reprieve.catchup, reprieve.limit, timedelta())
        entries += found.entries
        after, reason = found.until, reprieve.reason
    split = len(entries)
    if after < now:
        found = _decided(plan, after, now, schedule.terms.catchup, schedule.terms.catchup_limit, grace)
        entries += found.entries
        after = found.until
    overlap, queue_limit = _overlap(schedule.terms, entries, now, grace)
    begin: datetime | None = None
    ticks = []
    for index, entry in enumerate(entries):
        # The entries leave out no tick, so an interval begins where the entry before it ends.
        at = entry.tick if isinstance(entry, rules.Run) else entry.first
        begin = begin or rules.interval_of(plan, at)[0]
        if isinstance(entry, rules.Run):
            ticks.append(DecidedTick(at, at, begin, overlap, queue_limit))
        else:
            ticks.append(_skipped(entry, begin, reason if index < split else None))
        begin = ticks[-1].through
    starting = any(tick.starts for tick in ticks)
    after_progress = replace(progress, decided_until=after, reprieve=None, starting=starting)
    return Outcome(tuple(ticks), looked_ahead(plan, after_progress, now))


def looked_ahead(plan: Timetable, progress: Progress, now: datetime) -> Progress:
    """The progress of a schedule that is on, with when it is due next and when its next run starts."""
    end = rules.maintenance_end(plan, now)
    following = next(rules.walk(plan, progress.decided_until), None)
    # Days that the calendar leaves out are decided when their last tick has come, a day at a time.
    due = following.last if isinstance(following, rules.Skip) else following
    held = end is not None and due is not None and due <= now
    if held:
        # What is held runs at the end, as far as catch-up has it so.
        next_run_at = rules.next_start(plan, now, decided_until=progress.decided_until)
    else:
        next_run_at = rules.next_start(plan, max(now, progress.decided_until))
    return replace(
        progress,
        next_due=end if held else due,
        held_until=end if held else None,
        next_run_at=next_run_at,
    )


def resumed_progress(schedule: Schedule, now: datetime) -> Progress:
    """The progress of a schedule after anything that changes when it is due; cleared where it is off."""
    progress = schedule.progress
    if not schedule.is_on:
        return replace(progress, next_due=None, next_run_at=None, held_until=None)
    return looked_ahead(timetable_of(schedule), progress, now)


def _decided(
    plan: Timetable, after: datetime, now: datetime, catchup: Catchup, limit: int | None, grace: timedelta
) -> rules.Decided:
    strategy = catch_up_of(catchup, limit)
    at_once = max(MOST_TOLD_APART, strategy.limit or 0)
    return rules.decide(plan, after, now, grace=grace, catch_up=strategy, at_once=at_once)


def _overlap(
    terms: Terms, entries: Iterable[rules.Run | rules.Skip], now: datetime, grace: timedelta
) -> tuple[Overlap, int]:
    """Runs of missed ticks take turns: skipping or cancelling one for another would undo the catching up."""
    running = [entry for entry in entries if isinstance(entry, rules.Run)]
    if len(running) > 1 or any(now - run.starts_at > grace for run in running):
        return Overlap.QUEUE, MOST_CAUGHT_UP
    return terms.overlap, terms.queue_limit if terms.overlap is Overlap.QUEUE else 0


def _skipped(skip: rules.Skip, begin: datetime, off_reason: str | None) -> DecidedTick:
    reason = off_reason if off_reason and skip.reason == _MISSED else str(skip.reason)
    return DecidedTick(skip.first, skip.last, begin, None, 0, reason, skip.detail)
