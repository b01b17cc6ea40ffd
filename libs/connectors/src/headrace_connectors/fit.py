"""Whether values of one canonical type fit another without changing, for targets that speak canonical
types."""

from __future__ import annotations

from headrace_connectors import canonical
from headrace_connectors.canonical import INTEGER_RANGES
from headrace_connectors.errors import configuration
from headrace_connectors.gate import Check
from headrace_connectors.identifiers import quote
from headrace_connectors.model import Column

_STAMPS = ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")


def checks(column: Column, target: str, not_null: bool) -> list[Check]:
    """What every row must satisfy for ``column`` to become ``target``.

    :raises ConnectorError: TYPE_MISMATCH when no value of the one type can be meant for the other.
    """
    source, sql = column.type, quote(column.name)
    found = [Check(column.name, f"{sql} IS NULL", "NOT NULL", "NULL")] if not_null else []
    if source == target or (target == "VARCHAR" and not canonical.is_nested(source) and source != "BLOB"):
        return found
    if source in INTEGER_RANGES and target in INTEGER_RANGES:
        low, high = INTEGER_RANGES[target]
        if INTEGER_RANGES[source][0] < low or INTEGER_RANGES[source][1] > high:
            found.append(
                Check(
                    column.name,
                    f"TRY_CAST({sql} AS {target}) IS NULL AND {sql} IS NOT NULL",
                    target,
                    "a number out of range",
                )
            )
        return found
    if source == "VARCHAR" and not canonical.is_nested(target) and target != "BLOB":
        value, faithful = canonical.reading(sql, target)
        bad = f"{sql} IS NOT NULL AND (NOT ({faithful}) OR {value} IS NULL)"
        return [*found, Check(column.name, bad, target, "text")]
    if not _related(source, target):
        raise configuration(
            "TYPE_MISMATCH",
            f"column {column.name}: {source} cannot become {target}",
            column=column.name,
            type=source,
            target_type=target,
        )
    same = f"CAST(TRY_CAST({sql} AS {target}) AS {source}) IS NOT DISTINCT FROM {sql}"
    return [*found, Check(column.name, f"NOT ({same})", target, "a value out of range or too precise")]


def _related(source: str, target: str) -> bool:
    if canonical.is_number(source) and canonical.is_number(target):
        return True
    if source in _STAMPS and target in _STAMPS:
        return True
    return {source, target} == {"JSON", "VARCHAR"} or (source.startswith("ENUM") and target == "VARCHAR")
