"""What a read and a load would do, told without doing it: for dry runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace_connectors.model import Column

if TYPE_CHECKING:
    from headrace_connectors.shape import Shape


@dataclass(frozen=True)
class ReadPreview:
    """What a read would bring.  No row has been moved for it; of a CSV file whose columns are not declared,
    the beginning has been looked at."""

    columns: tuple[Column, ...]
    query: str = ""
    """SQL in the language of the system, with the bounds as they stand now; "" where there is none to ask."""
    lower: str | None = None
    """The cursor value that an incremental read goes on from; None reads from the beginning."""
    upper: str | None = None
    """The highest cursor value there is now; None where there is none, or it took too long to find."""
    estimated_rows: int | None = None
    """How many rows the system expects the query to give; None where it does not say."""
    files: tuple[str, ...] = ()
    """The names of the files, for a source that reads files."""
    guessed: tuple[str, ...] = ()
    """Columns whose type only the whole file decides: what is told of them is what its beginning suggests."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadPreview:
    """How rows would meet a target.  Types are those of the target, as its system declares them."""

    exists: bool
    """Whether the table, file or folder is there; what is not is made by the load."""
    columns: tuple[tuple[str, str], ...]
    """Name and type of the columns that would be written."""
    added: tuple[tuple[str, str], ...] = ()
    """Those of them that the load would add to the table (schema_drift: evolve)."""
    left_out: tuple[str, ...] = ()
    """Columns of the rows that the table lacks, and that would not be written (schema_drift: ignore)."""
    not_given: tuple[str, ...] = ()
    """Columns of the table that the rows lack: new rows get their default, a merge keeps theirs."""


def load_preview(shape: Shape, types: Iterable[str], target: Iterable[str] | None) -> LoadPreview:
    """The preview of a matched load; ``target`` names the columns that are there, None for a new one."""
    typed = tuple(zip((column.name for column in shape.loaded), types, strict=True))
    added = {column.name for column in shape.added}
    given = {name for name, _ in typed}
    return LoadPreview(
        exists=target is not None,
        columns=typed,
        added=tuple(pair for pair in typed if pair[0] in added),
        left_out=shape.dropped,
        not_given=tuple(name for name in target or () if name not in given),
    )
