"""Key ranges that cut a table into parts that can be read at the same time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from headrace_connectors.errors import configuration
from headrace_connectors.identifiers import literal, quote
from headrace_connectors.model import Split
from headrace_connectors.postgres.catalog import NativeColumn

_MOST_RANGES = 64


async def conditions(
    raw: Any,
    origin: str,
    condition: str,
    split: Split | None,
    natives: Sequence[NativeColumn],
    sampled: bool,
) -> list[str]:
    """The conditions of the parts: half-open ranges that leave nothing out, NULLs with the first.

    The cuts lie where equal numbers of rows are expected: at quantiles of the column (``sampled``: of a
    sample of it), so that gaps in a key do no harm.

    :raises ConnectorError: COLUMN_NOT_FOUND, SPLIT_INVALID.
    """
    if split is None or split.ranges == 1:
        return [condition]
    if not 1 < split.ranges <= _MOST_RANGES:
        raise configuration("SPLIT_INVALID", f"a read splits into 1 to {_MOST_RANGES} ranges")
    native = next((column for column in natives if column.name == split.column), None)
    if native is None:
        raise configuration(
            "COLUMN_NOT_FOUND", f"the split column {split.column} is not read", column=split.column
        )
    column = quote(native.name)
    cuts = await _cuts(raw, origin, condition, column, split.ranges, sampled)
    typed = [f"{literal(cut)}::{native.declared}" for cut in cuts]
    if not typed:
        return [condition]
    parts = [f"({column} < {typed[0]} OR {column} IS NULL)"]
    parts += [f"{column} >= {low} AND {column} < {high}" for low, high in itertools.pairwise(typed)]
    parts.append(f"{column} >= {typed[-1]}")
    return [f"({condition}) AND {part}" if condition else part for part in parts]


async def _cuts(raw: Any, origin: str, condition: str, column: str, ranges: int, sampled: bool) -> list[str]:
    where = f"WHERE ({condition}) AND {column} IS NOT NULL" if condition else f"WHERE {column} IS NOT NULL"
    fractions = ", ".join(str(part / ranges) for part in range(1, ranges))
    sample = " TABLESAMPLE SYSTEM (2) REPEATABLE (1)" if sampled else ""
    for source in dict.fromkeys((origin + sample, origin)):
        found = await raw.fetchval(
            f"SELECT (percentile_disc(ARRAY[{fractions}]) WITHIN GROUP (ORDER BY {column}))::text[] "
            f"FROM {source} {where}"
        )
        if found:
            return list(dict.fromkeys(str(cut) for cut in found))
    return []
