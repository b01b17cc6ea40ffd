"""One row for each quality check: how many violations, of how many rows, and some of them.

`violations` and `total` are BIGINT; `sample` is a JSON list of at most five violating rows, or NULL.
Tolerances (`max_violations`, `max_ratio`) are for the reader of the row to apply.
"""

from headrace_definition.model import (
    AcceptedValues,
    Freshness,
    NotNull,
    QualityCheck,
    Range,
    Referential,
    RowCount,
    SqlCheck,
    Unique,
)
from headrace_definition.sql.quoting import on_own_lines, quote, quoted_list
from headrace_definition.sql_lexing import without_terminator
from headrace_definition.substitution import literal

SAMPLE_ROWS = 5

# Names that no task key or ordinary column has, so that they cannot hide one.
_VIOLATING = quote("headrace violating")
_ROW = quote("headrace row")


def check_sql(check: QualityCheck) -> str:
    """The SELECT, in DuckDB's SQL, of one row (violations, total, sample) over the relation named like its
    input.

    Raises:
        ValueError: when the check has no input.
    """
    if check.input is None:
        raise ValueError("the check has no input")
    relation = quote(check.input)
    match check:
        case RowCount():
            return _row_count(check, relation)
        case Freshness():
            return _freshness(check, relation)
        case Unique():
            return _unique(check, relation)
        case Referential():
            violating = _orphans(check, relation)
        case SqlCheck():
            violating = without_terminator(check.sql)
        case NotNull() | AcceptedValues() | Range():
            violating = f"SELECT * FROM {relation} WHERE {_condition(check)}"
    return _counted(violating, "count(*)", relation)


def _counted(violating: str, measure: str, relation: str) -> str:
    return (
        f"WITH {_VIOLATING} AS NOT MATERIALIZED ({on_own_lines(violating)}) "
        f"SELECT CAST((SELECT {measure} FROM {_VIOLATING}) AS BIGINT) AS violations, "
        f"CAST((SELECT count(*) FROM {relation}) AS BIGINT) AS total, "
        f"(SELECT CAST(to_json(list({_ROW})) AS VARCHAR) "
        f"FROM (SELECT * FROM {_VIOLATING} LIMIT {SAMPLE_ROWS}) AS {_ROW}) AS sample"
    )


def _condition(check: NotNull | AcceptedValues | Range) -> str:
    """What is true of a violating row."""
    match check:
        case NotNull():
            return " OR ".join(f"{quote(name)} IS NULL" for name in check.columns)
        case AcceptedValues():
            allowed = ", ".join(literal(value) for value in check.values)
            return f"{quote(check.column)} IS NOT NULL AND {quote(check.column)} NOT IN ({allowed})"
        case Range():
            low = [] if check.min is None else [f"{quote(check.column)} < {literal(check.min)}"]
            high = [] if check.max is None else [f"{quote(check.column)} > {literal(check.max)}"]
            return " OR ".join(low + high)


def _unique(check: Unique, relation: str) -> str:
    keys = quoted_list(check.columns)
    known = " AND ".join(f"{quote(name)} IS NOT NULL" for name in check.columns)
    repeated = (
        f"SELECT {keys}, count(*) AS occurrences FROM {relation} WHERE {known} "
        f"GROUP BY {keys} HAVING count(*) > 1"
    )
    return _counted(repeated, "coalesce(sum(occurrences - 1), 0)", relation)


def _orphans(check: Referential, relation: str) -> str:
    pairs = list(zip(check.columns, check.to_columns or check.columns, strict=True))
    matches = " AND ".join(f"i.{quote(ours)} = r.{quote(theirs)}" for ours, theirs in pairs)
    known = " AND ".join(f"i.{quote(ours)} IS NOT NULL" for ours, _ in pairs)
    return f"SELECT i.* FROM {relation} AS i ANTI JOIN {quote(check.to)} AS r ON {matches} WHERE {known}"


def _row_count(check: RowCount, relation: str) -> str:
    low = [] if check.min is None else [f"n < {check.min}"]
    high = [] if check.max is None else [f"n > {check.max}"]
    outside = " OR ".join(low + high) or "FALSE"
    return f"{_verdict(outside, 'NULL')} FROM (SELECT count(*) AS n FROM {relation})"


def _freshness(check: Freshness, relation: str) -> str:
    seconds = check.max_age.total_seconds()
    # epoch() reads a date or a time without a zone as UTC, whatever the session's zone is.
    stale = f"latest IS NULL OR epoch(now()) - epoch(latest) > {seconds!r}"
    latest = f"SELECT max({quote(check.column)}) AS latest, count(*) AS n FROM {relation}"
    return f"{_verdict(stale, 'latest')} FROM ({latest})"


def _verdict(violated: str, sample: str) -> str:
    """A check of the set as a whole, which has n rows: it is violated once or not at all."""
    return (
        f"SELECT CAST(CASE WHEN {violated} THEN 1 ELSE 0 END AS BIGINT) AS violations, "
        f"CAST(n AS BIGINT) AS total, CAST({sample} AS VARCHAR) AS sample"
    )
