"""The store in PostgreSQL: statements in batches over arrays, never a round trip a row."""

from headrace_execution.store.sql.store import SqlStore

__all__ = ["SqlStore"]
