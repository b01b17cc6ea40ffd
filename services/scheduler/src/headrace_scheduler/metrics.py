"""What the scheduler counts."""

from typing import Final

from prometheus_client import Counter, Histogram

TICKS: Final = Counter(
    "hr_schedule_ticks_total",
    "Ticks by what came of them, and why. Ticks that were skipped together count as one.",
    ["decision", "reason"],
)
LATENESS: Final = Histogram(
    "hr_schedule_tick_lateness_seconds",
    "How long after its time the run of a tick was accepted; of ticks that were not caught up on.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
UNREADABLE: Final = Counter(
    "hr_schedule_unreadable_total", "How often the terms of a due schedule made no timetable any more."
)
