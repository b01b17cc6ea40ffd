"""The ledger of a file target: small JSON files beside it, changed under a lock, never half-written.

A load lands by one rename.  Before it, the *intent* (what is about to land, under which fence) is written and
synced; after it, the receipt.  Whoever finds an intent without a receipt can tell what happened: the staged
file is still there (the rename did not happen) or it is not (the load has landed, and its receipt is written
now).
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_connectors import ledger
from headrace_connectors.errors import transient
from headrace_connectors.ledger import Entry
from headrace_connectors.model import LoadKey, Receipt, Series

FOLDER = ".headrace"
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class FileLedger:
    """The ledger of one target path."""

    folder: Path
    lock_timeout: float

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the target's lock; it ends with the process that holds it.

        :raises ConnectorError: LOCK_TIMEOUT.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self.lock_timeout
        with (self.folder / "lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise transient(
                            "LOCK_TIMEOUT", "another process holds the target's ledger"
                        ) from error
                    time.sleep(_POLL_SECONDS)
            yield

    def read(self, key: LoadKey) -> Entry | None:
        """The entry of a load, after settling what a crash has left open; call it with the lock held."""
        path = self._path(key)
        if not path.exists():
            return None
        body = json.loads(path.read_bytes())
        intent = body.get("intent")
        if (
            intent is not None
            and body.get("receipt") is None
            and not (self.folder / intent["staged"]).exists()
        ):
            landed = {**intent["receipt"], "committed_at": _now()}
            body = {**body, "intent": None, "receipt": landed}
            self._write(key, body)
        receipt = _receipt(body["receipt"]) if body.get("receipt") else None
        return Entry(int(body["fence"]), bool(body["tombstoned"]), receipt)

    def write(self, key: LoadKey, entry: Entry) -> None:
        """Write fence and tombstone; forgets an intent, whose attempt is shut out by this."""
        self._write(
            key, {"fence": entry.fence, "tombstoned": entry.tombstoned, "key": _named(key), "receipt": None}
        )

    def read_series(self, series: Series) -> Entry | None:
        """The entry of a series, after settling what a crash has left open; call it with the lock held."""
        path = self._path(ledger.series_key(series))
        if not path.exists():
            return None
        body = json.loads(path.read_bytes())
        landing = body.get("landing")
        landed = self.read(LoadKey(**landing)) if landing is not None else None
        if landed is not None and landed.receipt is not None:
            return Entry(int(body["fence"]), False, landed.receipt)
        return Entry(int(body["fence"]), False, _receipt(body["receipt"]) if body["receipt"] else None)

    def write_series(self, series: Series, entry: Entry, landing: LoadKey | None = None) -> None:
        """Write the fence of a series and the receipt of its last load. ``landing`` is about to land: from
        then on its own entry tells whether it has."""
        key = ledger.series_key(series)
        body = {
            "fence": entry.fence,
            "tombstoned": False,
            "key": _named(key),
            "receipt": None if entry.receipt is None else _kept(entry.receipt),
            "landing": None if landing is None else _named(landing),
        }
        self._write(key, body)

    def land(self, key: LoadKey, fence: int, staged: Path, final: Path, receipt: Receipt) -> Receipt:
        """Intent, rename, receipt; call it with the lock held and the rules asked."""
        body: dict[str, Any] = {"fence": fence, "tombstoned": False, "key": _named(key), "receipt": None}
        told = _told(receipt)
        self._write(key, {**body, "intent": {"staged": staged.name, "final": str(final), "receipt": told}})
        staged.replace(final)
        sync_folder(final.parent)
        sync_folder(staged.parent)
        self._write(
            key,
            {**body, "intent": None, "receipt": _kept(receipt)},
        )
        return receipt

    def staged_path(self, key: LoadKey, fence: int) -> Path:
        """Where an attempt stages."""
        return self.folder / ledger.staging_name(key, fence)

    def sweep(self, key: LoadKey, fence: int | None = None) -> None:
        """Remove what attempts of this load have staged, but for that with ``fence``."""
        mine = None if fence is None else self.staged_path(key, fence)
        for path in self.folder.glob(f"_stg_{ledger.load_id(key)}_*"):
            if path != mine:
                path.unlink(missing_ok=True)

    def _path(self, key: LoadKey) -> Path:
        return self.folder / f"{ledger.load_id(key)}.json"

    def _write(self, key: LoadKey, body: dict[str, Any]) -> None:
        path = self._path(key)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(json.dumps(body, sort_keys=True).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(self.folder)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(key: LoadKey) -> dict[str, str]:
    return {"root_run_id": key.root_run_id, "task": key.task, "partition": key.partition}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _told(receipt: Receipt) -> dict[str, Any]:
    cursor = None if receipt.cursor is None else base64.b64encode(receipt.cursor).decode()
    return {
        "rows": receipt.rows,
        "bytes": receipt.bytes,
        "checksum": receipt.checksum,
        "cursor": cursor,
        "fence": receipt.fence,
    }


def _kept(receipt: Receipt) -> dict[str, Any]:
    return {**_told(receipt), "committed_at": receipt.committed_at.isoformat()}


def _receipt(body: dict[str, Any]) -> Receipt:
    cursor = None if body["cursor"] is None else base64.b64decode(body["cursor"])
    when = dt.datetime.fromisoformat(body["committed_at"])
    return Receipt(body["rows"], body["bytes"], body["checksum"], cursor, body["fence"], when)
