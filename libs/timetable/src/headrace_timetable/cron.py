"""The grammar of cron expressions, as Debian's cron reads them (crontab(5), Debian 3.0pl1-162).

Exactly five fields; names in any case; ranges, steps and lists; 0 and 7 are Sunday. Left out on purpose:
seconds and years, macros such as @daily, and the extensions `?`, `L`, `W`, `#` and `R`, which mean
different things in different programs. Also refused is what cron accepts and never means: ranges that wrap,
steps of zero, and dates that no year has.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """Names of the values from `low` on."""


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)
_LONGEST_MONTH = {month: 30 if month in (4, 6, 9, 11) else 31 for month in range(1, 13)} | {2: 29}
MAX_EXPRESSION_LENGTH = 1000


class CronError(ValueError):
    """The text is no cron expression.

    `field` names the field ("" where it is about the whole), `position` is the character, from 1, of what
    is wrong.
    """

    def __init__(self, field: str, position: int, message: str) -> None:
        place = f"{field}, character {position}: " if field else ""
        super().__init__(f"{place}{message}")
        self.field = field
        self.position = position
        self.message = message


@dataclass(frozen=True, slots=True)
class CronExpression:
    """A parsed expression: the values each field allows, and which fields began with a star.

    Two expressions that fire at the same times are equal, however they were written.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days_of_month: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]
    """0 is Sunday; there is no 7."""
    minute_star: bool
    hour_star: bool
    day_of_month_star: bool
    day_of_week_star: bool

    @property
    def follows_wall_clock(self) -> bool:
        """Whether it is a wildcard job (cron(8)): it follows a change of the clock, while any other job
        runs once."""
        return self.minute_star or self.hour_star

    @property
    def days_must_agree(self) -> bool:
        """Whether day of month AND day of week must match; else one of them is enough.

        They must where either field begins with a star, be it `*/2` (crontab(5); Vixie cron's DOM_STAR).
        """
        return self.day_of_month_star or self.day_of_week_star

    def matches_day(self, month: int, day: int, weekday: int) -> bool:
        """Whether it fires on a date; `weekday` is 0 for Sunday."""
        if month not in self.months:
            return False
        by_month, by_week = day in self.days_of_month, weekday in self.days_of_week
        return (by_month and by_week) if self.days_must_agree else (by_month or by_week)

    def __str__(self) -> str:
        """The expression in its shortest plain form; parsing it gives an equal one."""
        fields = (
            (self.minutes, self.minute_star, _FIELDS[0]),
            (self.hours, self.hour_star, _FIELDS[1]),
            (self.days_of_month, self.day_of_month_star, _FIELDS[2]),
            (self.months, False, _FIELDS[3]),
            (self.days_of_week, self.day_of_week_star, _FIELDS[4]),
        )
        return " ".join(_render(values, field, star=star) for values, star, field in fields)


def parse(expression: str) -> CronExpression:
    """The cron expression that the text is.

    Raises:
        CronError: naming the field and the character.
    """
    words = _split(expression)
    parsed = [_parse_field(word, at, field) for (word, at), field in zip(words, _FIELDS, strict=True)]
    (minutes, minute_star), (hours, hour_star), (days, day_star), (months, _), (weekdays, weekday_star) = (
        parsed
    )
    weekdays = frozenset(day % 7 for day in weekdays)
    cron = CronExpression(
        minutes, hours, days, months, weekdays, minute_star, hour_star, day_star, weekday_star
    )
    if cron.days_must_agree and not any(min(days) <= _LONGEST_MONTH[month] for month in months):
        message = f"day {min(days)} is in none of the months given, so it would never fire"
        raise CronError("day of month", words[2][1], message)
    return cron


def _split(expression: str) -> list[tuple[str, int]]:
    """The words with their positions from 1."""
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise CronError("", 1, f"longer than {MAX_EXPRESSION_LENGTH} characters")
    words: list[tuple[str, int]] = []
    inside = expression.strip()  # also of the end of a line, which comes along from files and shells
    position = expression.find(inside)
    for word in inside.replace("\t", " ").split(" "):
        if word:
            words.append((word, position + 1))
        position += len(word) + 1
    if words and words[0][0].startswith("@"):
        raise CronError("", words[0][1], "macros such as @daily are not known; write five fields")
    if len(words) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        raise CronError("", 1, f"needs exactly five fields ({names}), got {len(words)}")
    return words


def _parse_field(word: str, at: int, field: _Field) -> tuple[frozenset[int], bool]:
    values: set[int] = set()
    position = at
    for part in word.split(","):
        values.update(_parse_part(part, position, field))
        position += len(part) + 1
    return frozenset(values), word.startswith("*")


def _parse_part(part: str, at: int, field: _Field) -> range:
    """One element of a list: `*`, a value or a range, with or without a step."""
    if not part:
        raise CronError(field.name, at, "a value is missing")
    span, slash, step_text = part.partition("/")
    step = _step(step_text, at + len(span) + 1, field) if slash else 1
    if span == "*":
        return range(field.low, field.high + 1 if field.high != 7 else 7, step)
    first_text, dash, last_text = span.partition("-")
    first = _value(first_text, at, field)
    if dash:
        last_at = at + len(first_text) + 1
        last = _value(last_text, last_at, field)
        if last == 0 and last_text.lower() == "sun" and first > 0:
            last = 7  # fri-sun ends the week, where Sunday is 7 as well as 0
        if last < first:
            raise CronError(
                field.name, at, f"the range {span} runs backwards; write it as a list of two ranges"
            )
        return range(first, last + 1, step)
    if slash:
        # `5/15` is from 5 to the end by 15, as crontab(5) has it for `*/15`.
        return range(first, field.high + 1 if field.high != 7 else 7, step)
    return range(first, first + 1)


def _step(text: str, at: int, field: _Field) -> int:
    step = _digits(text)
    if step is None:
        raise CronError(field.name, at, "a step must be a number")
    if step == 0:
        raise CronError(field.name, at, "a step cannot be zero")
    if step > field.high:
        raise CronError(field.name, at, f"a step cannot be above {field.high}")
    return step


def _value(text: str, at: int, field: _Field) -> int:
    if not text:
        raise CronError(field.name, at, "a value is missing")
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    value = _digits(text)
    if value is None:
        names = f" or a name such as {field.names[0].upper()}" if field.names else ""
        raise CronError(
            field.name, at, f"{text[:20]!r} is not a number from {field.low} to {field.high}{names}"
        )
    if not field.low <= value <= field.high:
        raise CronError(field.name, at, f"{text[:20]} is not from {field.low} to {field.high}")
    return value


def _digits(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else None


def _render(values: frozenset[int], field: _Field, *, star: bool) -> str:
    high = 6 if field.high == 7 else field.high
    everything = frozenset(range(field.low, high + 1))
    if star and values != everything:
        step = next(
            (n for n in range(1, field.high + 1) if frozenset(range(field.low, high + 1, n)) == values), None
        )
        # A list that begins with a star holds everything, so what is left is a star with a step, or one in
        # a list.
        return f"*/{step}" if step is not None else _starred_list(values, field, high)
    if star or (values == everything and field.name == "month"):
        return "*"
    return _ranges(values)


def _starred_list(values: frozenset[int], field: _Field, high: int) -> str:
    """`*/20,7`: the widest star with a step that is within the values, then the rest of them."""
    for step in range(1, field.high + 1):
        covered = frozenset(range(field.low, high + 1, step))
        if covered <= values:
            return f"*/{step},{_ranges(values - covered)}"
    raise AssertionError("a field that began with a star holds its lowest value")


def _ranges(values: frozenset[int]) -> str:
    parts: list[str] = []
    run: list[int] = []
    for value in [*sorted(values), None]:
        if value is not None and run and value == run[-1] + 1:
            run.append(value)
            continue
        if run:
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
        run = [] if value is None else [value]
    return ",".join(parts)
