"""Names of tables and columns inside SQL: one quoting function, one check, for every system."""

from __future__ import annotations

from headrace_connectors.errors import configuration

POSTGRESQL_NAME_BYTES = 63
"""PostgreSQL cuts longer names silently (NAMEDATALEN - 1), and two long names may then be one: refused
instead."""


def quote(name: str) -> str:
    """``name`` as a quoted SQL identifier, the same in PostgreSQL, SQLite and DuckDB.

    :raises ConnectorError: IDENTIFIER_INVALID for an empty name or one with NUL.
    """
    if not name or "\0" in name:
        raise configuration("IDENTIFIER_INVALID", "a name must not be empty or hold NUL", name=repr(name))
    return '"' + name.replace('"', '""') + '"'


def quote_all(names: list[str] | tuple[str, ...]) -> str:
    """The names as a comma-separated list of quoted identifiers."""
    return ", ".join(quote(name) for name in names)


def literal(text: str) -> str:
    """``text`` as an SQL string literal (standard-conforming strings).

    :raises ConnectorError: VALUE_INVALID for text with NUL, which no SQL text can hold.
    """
    if "\0" in text:
        raise configuration("VALUE_INVALID", "a value inside SQL must not hold NUL")
    return "'" + text.replace("'", "''") + "'"


def check_postgresql_name(name: str, what: str) -> None:
    """Refuse a name PostgreSQL would cut.

    :raises ConnectorError: IDENTIFIER_TOO_LONG.
    """
    size = len(name.encode())
    if size > POSTGRESQL_NAME_BYTES:
        raise configuration(
            "IDENTIFIER_TOO_LONG",
            f"the {what} name {name!r} has {size} bytes, PostgreSQL keeps {POSTGRESQL_NAME_BYTES}",
            name=name,
        )


def split_table(text: str) -> tuple[str | None, str]:
    """``schema.table`` or ``table`` into its parts; parts with dots or capitals may be quoted
    (``"My.Schema".t``).

    :raises ConnectorError: TABLE_NAME_INVALID.
    """
    parts: list[str] = []
    rest = text.strip()
    while True:
        if rest.startswith('"'):
            part, rest = _quoted_part(rest, text)
        else:
            part, dot, rest = rest.partition(".")
            rest = dot + rest
        if not part or "\0" in part:
            raise configuration("TABLE_NAME_INVALID", f"{text!r} is not a table name", table=repr(text))
        parts.append(part)
        if not rest:
            break
        if not rest.startswith("."):
            raise configuration("TABLE_NAME_INVALID", f"{text!r} is not a table name", table=repr(text))
        rest = rest[1:]
    if len(parts) > 2:
        raise configuration(
            "TABLE_NAME_INVALID", f"{text!r} has more parts than schema and table", table=repr(text)
        )
    return (None, parts[0]) if len(parts) == 1 else (parts[0], parts[1])


def _quoted_part(rest: str, whole: str) -> tuple[str, str]:
    """The name between the opening quote of ``rest`` and its closing one, and what follows."""
    position = 1
    name = ""
    while True:
        end = rest.find('"', position)
        if end < 0:
            raise configuration("TABLE_NAME_INVALID", f"{whole!r} lacks a closing quote", table=repr(whole))
        name += rest[position:end]
        if rest[end + 1 : end + 2] != '"':
            return name, rest[end + 1 :]
        name += '"'
        position = end + 2
