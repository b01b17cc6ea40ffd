"""Identifiers and small phrases of SQL."""

from collections.abc import Iterable


def quote(identifier: str) -> str:
    """The identifier in double quotes, whatever it holds.

    Raises:
        ValueError: for an empty one or one with a NUL character, which no system can hold.
    """
    if not identifier or "\x00" in identifier:
        raise ValueError("an identifier cannot be empty or hold a NUL character")
    return '"' + identifier.replace('"', '""') + '"'


def quoted_list(identifiers: Iterable[str]) -> str:
    """Identifiers, quoted, with commas between."""
    return ", ".join(quote(identifier) for identifier in identifiers)


def on_own_lines(sql: str) -> str:
    """SQL of the user's between line breaks, so that a comment at its end ends there."""
    return f"\n{sql}\n"
