"""Names of columns, compared as SQL does: without regard to case."""

from collections.abc import Iterable


def duplicate(names: Iterable[str]) -> str | None:
    """The first name that was there before, or None."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            return name
        seen.add(name.lower())
    return None
