"""Transformations that need no table of their own: their reader computes them along with itself.

A table between two steps costs as much as the steps. But each task has a count of rows, and an error is told
of the task that it comes from. So only those wait that cannot fail any more, whose count is their input's,
and that one reader reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace_connectors.api import Scratch
from headrace_definition.model import Cast, LookupJoin, Rename, Select, Transformation
from headrace_definition.sql import quote

_LARGEST_LOOKUP = 1_000_000
"""Rows beyond which it costs more to look at the keys of a lookup twice than a table would."""


async def can_wait(config: Transformation, scratch: Scratch, rows: Mapping[str, int]) -> bool:
    """Whether a transformation gives each row of its input once and cannot fail, whatever its reader reads.

    `rows` are those of its inputs. What may fail must not wait: a reader that filters would not see each row,
    or one that drops a column not each value, and the error would depend on what comes after.
    """
    if isinstance(config, Rename):
        return True
    if isinstance(config, Select):
        return not isinstance(config.columns, dict)
    if isinstance(config, Cast):
        return config.on_error == "null"
    if not isinstance(config, LookupJoin) or config.join != "left" or rows[config.lookup] > _LARGEST_LOOKUP:
        return False
    pairs = config.on if isinstance(config.on, dict) else {name: name for name in config.on}
    ours, theirs = await _types(config.input or "", scratch), await _types(config.lookup, scratch)
    if any(ours.get(our.lower()) != theirs.get(their.lower()) for our, their in pairs.items()):
        return False  # the comparison converts one of them, which may fail
    return not await _repeats(config.lookup, list(pairs.values()), scratch)


async def _types(relation: str, scratch: Scratch) -> dict[str, str]:
    return {column.name.lower(): column.type for column in await scratch.columns(relation)}


async def _repeats(lookup: str, keys: Sequence[str], scratch: Scratch) -> bool:
    """Whether a key stands twice in a lookup: then the join itself says so."""
    names = ", ".join(quote(key) for key in keys)
    known = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    sql = f"SELECT 1 FROM {quote(lookup)} WHERE {known} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"
    return bool(await scratch.fetch(sql))
