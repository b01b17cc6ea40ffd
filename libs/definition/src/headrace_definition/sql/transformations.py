"""One SELECT for each transformation."""

from headrace_definition.model import (
    Aggregate,
    Cast,
    Deduplicate,
    Filter,
    LookupJoin,
    Rename,
    Select,
    SqlTransform,
    Transformation,
    Union,
    WaitForSignal,
)
from headrace_definition.sql.quoting import on_own_lines, quote, quoted_list
from headrace_definition.sql_lexing import without_terminator
from headrace_definition.substitution import literal


def transformation_sql(transformation: Transformation) -> str:
    """The SELECT, in DuckDB's SQL, that computes a transformation from the relations named like its inputs.

    Raises:
        ValueError: when the transformation is not complete (no SQL, no condition, no input).
    """
    match transformation:
        case SqlTransform():
            return without_terminator(_given(transformation.sql, "sql"))
        case LookupJoin():
            return _lookup_join(transformation)
        case Filter():
            condition = on_own_lines(_given(transformation.condition, "condition"))
            return f"SELECT * FROM {_input(transformation.input)} WHERE ({condition})"
        case Select():
            return _select(transformation)
        case Rename():
            pairs = ", ".join(f"{quote(old)} AS {quote(new)}" for old, new in transformation.columns.items())
            return f"SELECT * RENAME ({pairs}) FROM {_input(transformation.input)}"
        case Cast():
            return _cast(transformation)
        case Aggregate():
            return _aggregate(transformation)
        case Deduplicate():
            return _deduplicate(transformation)
        case Union():
            how = "UNION" if transformation.distinct else "UNION ALL"
            how = f" {how} BY NAME " if transformation.by_name else f" {how} "
            return how.join(f"SELECT * FROM {quote(key)}" for key in transformation.inputs)
        case WaitForSignal():
            return f"SELECT * FROM {_input(transformation.input)}"


def _given(text: str | None, name: str) -> str:
    if text is None:
        raise ValueError(f"the {name} is not written yet")
    return text


def _input(key: str | None) -> str:
    return quote(_given(key, "input"))


def _lookup_join(join: LookupJoin) -> str:
    pairs = join.on.items() if isinstance(join.on, dict) else [(name, name) for name in join.on]
    keys = [theirs for _, theirs in pairs]
    if join.columns is None:
        added = f"l.* EXCLUDE ({quoted_list(dict.fromkeys([*keys, _REPEATED]))})"
    else:
        wanted = join.columns if isinstance(join.columns, dict) else {name: name for name in join.columns}
        added = ", ".join(f"l.{quote(old)} AS {quote(new)}" for new, old in wanted.items())
    matches = " AND ".join(f"i.{quote(ours)} = l.{quote(theirs)}" for ours, theirs in pairs)
    kind = "LEFT" if join.join == "left" else "INNER"
    # The mark is part of the join's condition because a column that nothing reads would never be computed.
    return (
        f"SELECT i.*, {added} FROM {_input(join.input)} AS i {kind} JOIN ({_unique_lookup(join, keys)}) AS l "
        f"ON {matches} AND l.{quote(_REPEATED)} IS NULL"
    )


_REPEATED = "headrace repeated key"


def _unique_lookup(join: LookupJoin, keys: list[str]) -> str:
    """The lookup with a mark that fails the query where a key stands twice; keys with a NULL match
    nothing."""
    names = ", ".join(keys)
    message = literal(
        f"lookup_join {join.id}: the key ({names}) is not unique in {join.lookup}".replace("${", "$ {")
    )
    known = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    repeated = f"count(*) OVER (PARTITION BY {quoted_list(keys)}) > 1"
    mark = f"CASE WHEN {repeated} THEN error({message}) END AS {quote(_REPEATED)}"
    return f"SELECT *, {mark} FROM {quote(join.lookup)} WHERE {known}"


def _select(select: Select) -> str:
    if select.columns is None:
        chosen = "*"
    elif isinstance(select.columns, dict):
        chosen = ", ".join(
            f"({on_own_lines(text)}) AS {quote(name)}" for name, text in select.columns.items()
        )
    else:
        chosen = quoted_list(select.columns)
    return f"SELECT {chosen} FROM {_input(select.input)}"


def _cast(cast: Cast) -> str:
    function = "CAST" if cast.on_error == "fail" else "TRY_CAST"
    replaced = ", ".join(
        f"{function}({quote(name)} AS {type_name}) AS {quote(name)}"
        for name, type_name in cast.columns.items()
    )
    return f"SELECT * REPLACE ({replaced}) FROM {_input(cast.input)}"


def _aggregate(aggregate: Aggregate) -> str:
    computed = ", ".join(
        f"({on_own_lines(text)}) AS {quote(name)}" for name, text in aggregate.aggregates.items()
    )
    groups = quoted_list(aggregate.group_by)
    sql = f"SELECT {groups + ', ' if groups else ''}{computed} FROM {_input(aggregate.input)}"
    if groups:
        sql += f" GROUP BY {groups}"
    if aggregate.having is not None:
        sql += f" HAVING ({on_own_lines(aggregate.having)})"
    return sql


def _deduplicate(deduplicate: Deduplicate) -> str:
    if deduplicate.keys is None:
        return f"SELECT DISTINCT * FROM {_input(deduplicate.input)}"
    order = ", ".join(on_own_lines(term) for term in deduplicate.order_by)
    window = f"PARTITION BY {quoted_list(deduplicate.keys)}" + (f" ORDER BY {order}" if order else "")
    return f"SELECT * FROM {_input(deduplicate.input)} QUALIFY row_number() OVER ({window}) = 1"
