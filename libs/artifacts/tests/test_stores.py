"""What any store must do, on a folder and through pyarrow."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from headrace_artifacts.keys import LOGS, check_key, new_key, pipeline_prefix, run_prefix
from headrace_artifacts.local import LocalStore
from headrace_artifacts.remote import RemoteStore
from headrace_artifacts.store import (
    ArtifactError,
    ArtifactMissing,
    ArtifactStore,
    ArtifactStoreFull,
    read_all,
)
from headrace_artifacts.urls import check_url, open_store


@pytest.fixture(params=["folder", "s3", "gcs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """Each kind of store, empty."""
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    bucket, system = request.getfixturevalue(f"new_{request.param}_bucket")()
    return RemoteStore(system, f"{bucket}/artifacts")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_put_is_read_from_any_place(store: ArtifactStore) -> None:
    stored = store.put("t/p/r/a.csv", [b"hello ", b"", b"world"])

    assert (stored.bytes, stored.sha256) == (11, hashlib.sha256(b"hello world").hexdigest())
    assert read_all(store, "t/p/r/a.csv", 100) == b"hello world"
    reader = store.open("t/p/r/a.csv", 6)
    assert (reader.size, reader.read(3), reader.read(100), reader.read(1)) == (11, b"wor", b"ld", b"")
    reader.close()
    reader.close()
    with pytest.raises(ArtifactError):
        read_all(store, "t/p/r/a.csv", 10)


def test_what_is_not_there_is_missing_and_may_be_removed(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissing):
        store.open("t/p/r/none")
    store.delete(["t/p/r/none"])
    store.delete_below("t/p")


def test_what_broke_off_is_not_there(store: ArtifactStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        store.put("t/p/r/a", broken())

    with pytest.raises(ArtifactMissing):
        store.open("t/p/r/a")
    assert files(tmp_path) == []


def test_a_prefix_takes_its_own_and_no_more(store: ArtifactStore) -> None:
    for key in ("t/p/r/logs/a", "t/p/r/logs/b", "t/p/r2/logs/c", "t/p2/r/d"):
        store.put(key, [b"x"])

    store.delete_below("t/p/r")
    store.delete(["t/p/r2/logs/c"])

    for key in ("t/p/r/logs/a", "t/p/r/logs/b", "t/p/r2/logs/c"):
        with pytest.raises(ArtifactMissing):
            store.open(key)
    assert read_all(store, "t/p2/r/d", 10) == b"x"


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.hidden", "a b", "a\x00b", "ä", "a/" * 500 + "a"]
)
def test_a_key_leads_nowhere_else(store: ArtifactStore, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        store.put(key, [b"x"])
    with pytest.raises(ValueError, match="no key"):
        store.delete_below(key)


def test_removing_a_folder_while_others_write_into_it_loses_no_write(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    stop = threading.Event()

    def remove() -> None:
        while not stop.is_set():
            store.delete_below("t/p")

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for number in range(50):
            store.put(f"t/p/{number}/x", [b"x"])
    finally:
        stop.set()
        remover.join()
    store.put("t/p/last", [b"y"])
    assert read_all(store, "t/p/last", 1) == b"y"


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactStoreFull):
        LocalStore(tmp_path).put("t/a", [b"x"])
    assert files(tmp_path) == []


def test_what_is_stored_is_its_owners_alone(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store").put("t/p/a", [b"x"])
    files_there = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in [tmp_path / "store", *files_there])


def test_keys_are_sorted_by_owner_and_end_in_chance() -> None:
    tenant, pipeline, run = uuid4(), uuid4(), uuid4()
    one, other = (new_key(run_prefix(tenant, pipeline, run), LOGS, "s-1", "ndjson") for _ in range(2))
    assert one != other
    assert one.startswith(f"{pipeline_prefix(tenant, pipeline)}/{run}/logs/s-1-")
    assert len(one.rpartition("-")[2].partition(".")[0]) == 32
    assert check_key(one) == one


@pytest.mark.parametrize(
    "url",
    ["", "/var/lib", "http://host/x", "file://host/x", "s3://", "gs:///path", "s3://key:secret@bucket/p"],
)
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected|slashes|bucket|credentials") as told:
        check_url(url)
    assert "secret" not in str(told.value)


def test_urls_open_stores(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/with%20space")
    store.put("t/a", [b"x"])
    assert files(tmp_path / "with space") == ["a"]
    s3 = open_store("s3://bucket/prefix?region=eu-central-1&endpoint_override=127.0.0.1%3A1&scheme=http")
    assert isinstance(s3, RemoteStore)
    with pytest.raises(ValueError, match="not valid"):
        open_store("s3://bucket/prefix?colour=blue")
