"""Changing values that do not change: a copy with other fields."""

from typing import Any, TypeVar

V = TypeVar("V")


def replace(value: V, **changes: Any) -> V:
    """A copy of a run, a stage or a task with some fields changed.

    What `dataclasses.replace` does, without its way through the constructor, which sets each of thirty fields
    anew: 1.5 instead of 10 microseconds, some fifteen times a run. For frozen dataclasses that keep their
    fields in a `__dict__` and have no `__post_init__`.

    Raises:
        TypeError: when a name is that of no field.
    """
    copy = object.__new__(type(value))
    fields = copy.__dict__
    fields.update(value.__dict__)
    known = len(fields)
    fields.update(changes)
    if len(fields) != known:
        raise TypeError(f"{type(value).__name__} has no field {', '.join(changes.keys() - value.__dict__)}")
    return copy
