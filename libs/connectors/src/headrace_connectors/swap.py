"""How staged rows meet those of the target: each mode in SQL that PostgreSQL, SQLite and DuckDB share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_connectors.identifiers import quote, quote_all
from headrace_connectors.model import SinkMode


@dataclass(frozen=True)
class Swap:
    """One swap.  ``target`` and ``staging`` are quoted SQL names; ``partition`` is a condition on target
    rows.

    ``unique`` says that a unique index of the target is exactly the keys, so that ON CONFLICT finds them.
    """

    mode: SinkMode
    target: str
    staging: str
    columns: Sequence[str]
    keys: Sequence[str] = ()
    unique: bool = False
    partition: str = ""
    overriding: str = ""

    def statements(self) -> list[str]:
        """The statements, in order."""
        if self.mode == "append":
            return [self._insert()]
        if self.mode == "replace":
            return [f"DELETE FROM {self.target}", self._insert()]
        if self.mode == "replace_partition":
            return [f"DELETE FROM {self.target} WHERE {self.partition}", self._insert()]
        return [self._upsert()] if self.unique else self._merge()

    @property
    def _rest(self) -> list[str]:
        return [column for column in self.columns if column not in self.keys]

    def _insert(self) -> str:
        names = quote_all(tuple(self.columns))
        return f"INSERT INTO {self.target} ({names}){self.overriding} SELECT {names} FROM {self.staging}"

    def _upsert(self) -> str:
        """``WHERE true`` keeps SQLite from reading ON CONFLICT as a join."""
        changes = ", ".join(f"{quote(name)} = EXCLUDED.{quote(name)}" for name in self._rest)
        action = f"DO UPDATE SET {changes}" if changes else "DO NOTHING"
        return f"{self._insert()} WHERE true ON CONFLICT ({quote_all(tuple(self.keys))}) {action}"

    def _merge(self) -> list[str]:
        same = " AND ".join(f"{self.target}.{quote(key)} = s.{quote(key)}" for key in self.keys)
        names = quote_all(tuple(self.columns))
        listed = ", ".join(f"s.{quote(name)}" for name in self.columns)
        insert = (
            f"INSERT INTO {self.target} ({names}){self.overriding} SELECT {listed} FROM {self.staging} AS s "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.target} WHERE {same})"
        )
        if not self._rest:
            return [insert]
        changes = ", ".join(f"{quote(name)} = s.{quote(name)}" for name in self._rest)
        return [f"UPDATE {self.target} SET {changes} FROM {self.staging} AS s WHERE {same}", insert]
