"""The ledger inside a database file, in SQL that SQLite and DuckDB share."""

from __future__ import annotations

import datetime as dt

from headrace_connectors import ledger
from headrace_connectors.embedded.target import Target
from headrace_connectors.identifiers import quote
from headrace_connectors.ledger import Entry
from headrace_connectors.model import LoadKey, Receipt

_TABLE = quote(ledger.TABLE)
_KEY = "root_run_id = ? AND task = ? AND part = ?"


def ensure(target: Target) -> None:
    """Make the table when it is not there; the caller's transaction holds the file's write lock."""
    target.run(
        f"CREATE TABLE IF NOT EXISTS {_TABLE} (root_run_id VARCHAR NOT NULL, task VARCHAR NOT NULL, "
        "part VARCHAR NOT NULL, fence BIGINT NOT NULL, tombstoned BOOLEAN NOT NULL, target VARCHAR, "
        "staging VARCHAR, "
        '"rows" BIGINT, bytes BIGINT, checksum VARCHAR, "cursor" BLOB, committed_fence BIGINT, '
        "committed_at VARCHAR, PRIMARY KEY (root_run_id, task, part))"
    )


def exists(target: Target) -> bool:
    """Whether this file has a ledger."""
    return target.table(None, ledger.TABLE) is not None


def read(target: Target, key: LoadKey) -> Entry | None:
    """The entry of a load."""
    rows = target.run(
        'SELECT fence, tombstoned, "rows", bytes, checksum, "cursor", committed_fence, committed_at '
        f"FROM {_TABLE} WHERE {_KEY}",
        _values(key),
    )
    if not rows:
        return None
    fence, tombstoned, count, size, checksum, cursor, committed, at = rows[0]
    receipt = None
    if at is not None:
        held = bytes(cursor) if isinstance(cursor, bytes | bytearray | memoryview) else None
        when = dt.datetime.fromisoformat(str(at))
        receipt = Receipt(int(str(count)), int(str(size)), str(checksum), held, int(str(committed)), when)
    return Entry(int(str(fence)), bool(tombstoned), receipt)


def staging_of(target: Target, key: LoadKey) -> str | None:
    """The staging name the attempt before has noted."""
    rows = target.run(f"SELECT staging FROM {_TABLE} WHERE {_KEY}", _values(key))
    return str(rows[0][0]) if rows and rows[0][0] is not None else None


def write(target: Target, key: LoadKey, entry: Entry, name: str, staging: str | None) -> None:
    """Write fence and tombstone; the rules were asked under the same lock."""
    if read(target, key) is None:
        target.run(
            f"INSERT INTO {_TABLE} (root_run_id, task, part, fence, tombstoned) VALUES (?, ?, ?, 0, false)",
            _values(key),
        )
    target.run(
        f"UPDATE {_TABLE} SET fence = ?, tombstoned = ?, target = ?, staging = ? WHERE {_KEY}",
        [entry.fence, entry.tombstoned, name, staging, *_values(key)],
    )


def settle(target: Target, key: LoadKey, receipt: Receipt) -> None:
    """Write the receipt."""
    target.run(
        f'UPDATE {_TABLE} SET "rows" = ?, bytes = ?, checksum = ?, "cursor" = ?, committed_fence = ?, '
        f"committed_at = ?, staging = NULL WHERE {_KEY}",
        [
            receipt.rows,
            receipt.bytes,
            receipt.checksum,
            receipt.cursor,
            receipt.fence,
            receipt.committed_at.isoformat(),
            *_values(key),
        ],
    )


def _values(key: LoadKey) -> list[object]:
    return [key.root_run_id, key.task, key.partition]
