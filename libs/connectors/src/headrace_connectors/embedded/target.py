"""What the sink needs of a database file, in blocking calls; SQLite and DuckDB each say how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headrace_connectors.gate import Check
from headrace_connectors.model import Column

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class FileColumn:
    """A column of a table in the file."""

    name: str
    declared: str
    not_null: bool
    has_default: bool
    generated: bool = False


class Target(Protocol):
    """An open database file.  All calls block; ``interrupt`` may come from another thread."""

    def run(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Execute one statement."""
        ...

    def begin(self) -> None:
        """Open a writing transaction, waiting for other writers."""
        ...

    def table(self, schema: str | None, name: str) -> list[FileColumn] | None:
        """The columns of a table, None when there is none."""
        ...

    def unique_keys(self, schema: str | None, name: str) -> list[frozenset[str]]:
        """The column sets of its unique indexes."""
        ...

    def declared_type(self, column: Column) -> str:
        """The declared type of a column we create."""
        ...

    def checks(self, column: Column, declared: str, not_null: bool) -> list[Check]:
        """What every row must satisfy to be stored in a column of type ``declared``."""
        ...

    def outgoing(self, column: Column, declared: str) -> str:
        """SQL in the scratch for a value on its way to the column."""
        ...

    def make_staging(self, name: str, columns: Sequence[tuple[str, str]]) -> None:
        """An empty staging table of names and declared types; an old one goes away."""
        ...

    def staging_sql(self, name: str) -> str:
        """How swap statements name the staging table."""
        ...

    def fill(self, name: str, batch: pa.RecordBatch, declared: Sequence[str]) -> None:
        """Add rows to the staging table."""
        ...

    def drop_staging(self, name: str) -> None:
        """Remove the staging table."""
        ...

    def forget_staging(self, name: str) -> None:
        """Remove what an older attempt has staged; called inside the claim's transaction."""
        ...

    def bound(self, value: object, kind: str) -> str:
        """An end of a partition range as SQL that compares with a column of canonical type ``kind``."""
        ...

    def interrupt(self) -> None:
        """Stop the running statement."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...
