"""The rules of the ledger, the same in every target: who may claim, who may commit, what a tombstone does.

A ledger row belongs to one load (root run, task, partition).  Its *fence* is the number of the newest attempt
that may write; a *tombstone* shuts out that attempt too; a *receipt* says that the load landed, and is
written in the transaction (or rename) of the load itself.

Loads that go on from one another have a row in common besides, that of their *series*.  Its fence is that of
the newest load whose turn it was, and keeps every older one from landing late; its receipt is a copy of that
of the last one that landed.  So a load learns from its target how far the ones before it came, also where
nobody heard the end of one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from headrace_connectors.errors import fenced_out
from headrace_connectors.model import LoadKey, Receipt, Series

TABLE = "_headrace_loads"
FOREVER = 2**63 - 1
"""The fence of a tombstone that no attempt can ever pass."""


@dataclass(frozen=True)
class Entry:
    """A row of the ledger."""

    fence: int
    tombstoned: bool
    receipt: Receipt | None


def check_claim(key: LoadKey, fence: int, entry: Entry | None) -> Receipt | None:
    """May an attempt with ``fence`` take the load over?

    :returns: the receipt when there is nothing left to do.
    :raises FencedOut: when a newer attempt or a tombstone stands there.
    """
    if entry is None:
        return None
    if entry.receipt is not None:
        return entry.receipt
    if entry.fence > fence or (entry.tombstoned and entry.fence >= fence):
        raise fenced_out(key.task, fence, entry.fence, entry.tombstoned)
    return None


def check_commit(key: LoadKey, fence: int, entry: Entry | None) -> Receipt | None:
    """May the attempt with ``fence`` commit?  Asked inside the committing transaction, with the row locked.

    :returns: the receipt when the load has landed already.
    :raises FencedOut: unless ``fence`` is exactly the one that stands there, alive.
    """
    if entry is not None and entry.receipt is not None:
        return entry.receipt
    if entry is None or entry.fence != fence or entry.tombstoned:
        standing = entry.fence if entry else 0
        raise fenced_out(key.task, fence, standing, entry.tombstoned if entry else False)
    return None


def buried(entry: Entry | None, fence: int | None) -> Entry:
    """The entry after a tombstone at ``fence`` (None: for ever).  A receipt stays what it is, a fence never
    falls."""
    wanted = FOREVER if fence is None else fence
    if entry is None:
        return Entry(wanted, True, None)
    if entry.receipt is not None:
        return entry
    return Entry(max(entry.fence, wanted), entry.tombstoned if entry.fence > wanted else True, None)


def series_key(series: Series) -> LoadKey:
    """The key of the row that the loads of a series have in common. No run has such an id."""
    return LoadKey(f"pipeline {series.pipeline}", series.task)


def after_turn(entry: Entry | None, fence: int) -> Entry:
    """The entry of a series when it is the turn of a load with ``fence``; a fence never falls.

    Who comes late is not refused here: it is when it commits.
    """
    return (
        Entry(fence, False, None) if entry is None else Entry(max(entry.fence, fence), False, entry.receipt)
    )


def check_turn(series: Series, fence: int, entry: Entry | None) -> None:
    """May the load with ``fence`` land now?  Asked inside the committing transaction, with the row locked.

    :raises FencedOut: unless nobody's turn came after its own.
    """
    if entry is None or entry.fence != fence:
        raise fenced_out(series.task, fence, entry.fence if entry else 0, tombstoned=False)


def load_id(key: LoadKey) -> str:
    """A short name for a load, fit for tables and files, the same in every process."""
    parts = "\0".join((key.root_run_id, key.task, key.partition))
    return hashlib.sha256(parts.encode()).hexdigest()[:24]


def staging_name(key: LoadKey, fence: int) -> str:
    """The name of an attempt's staging place: deterministic, so that it can be found, and by fence, so that a
    paused older attempt that still holds its own cannot stand in the way."""
    return f"_stg_{load_id(key)}_{fence}"
