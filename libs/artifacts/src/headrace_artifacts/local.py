"""Artifacts in a local folder, or in one that several machines share."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from headrace_artifacts.keys import check_key
from headrace_artifacts.store import ArtifactError, ArtifactMissing, ArtifactStoreFull, Stored

_INCOMING = ".incoming"
"""What is being written, in the same file system as what was. No key begins with a dot."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LocalStore:
    """The folder; it is made, for its owner alone, when something is first put into it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, pieces: Iterable[bytes]) -> Stored:
        """See the protocol."""
        final = self._path(key)
        fresh = self._root / _INCOMING / uuid.uuid4().hex
        with _told("written"):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            stored = _write(os.fdopen(descriptor, "wb"), pieces)
            with _told("written"):
                self._land(fresh, final)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        return stored

    def _land(self, fresh: Path, final: Path) -> None:
        while True:
            try:
                final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fresh.replace(final)
            except FileNotFoundError:
                if not fresh.exists():
                    raise
                continue  # somebody removes a folder at this moment: it is made again
            break
        for folder in (final.parent, *final.parent.parents):
            with contextlib.suppress(FileNotFoundError):  # removed again, with what was put into it
                _sync(folder)
            if folder == self._root:
                break

    def open(self, key: str, start: int = 0) -> LocalReader:
        """See the protocol."""
        with _told("read"):
            file = self._path(key).open("rb")
            file.seek(start)
            return LocalReader(file, os.fstat(file.fileno()).st_size)

    def delete(self, keys: Collection[str]) -> None:
        """See the protocol."""
        for key in keys:
            with _told("removed"):
                self._path(key).unlink(missing_ok=True)

    def delete_below(self, prefix: str) -> None:
        """See the protocol."""
        # Moved away first: what others put there meanwhile is either removed as a whole or stays.
        folder, gone = self._path(prefix), self._root / _INCOMING / uuid.uuid4().hex
        with _told("removed"), contextlib.suppress(FileNotFoundError):
            gone.parent.mkdir(mode=0o700, exist_ok=True)
            folder.replace(gone)
            shutil.rmtree(gone)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)


class LocalReader:
    """A file that is being read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, most: int) -> bytes:
        """See the protocol."""
        with _told("read"):
            return self._file.read(most)

    def close(self) -> None:
        """See the protocol."""
        self._file.close()


def _write(file: BinaryIO, pieces: Iterable[bytes]) -> Stored:
    digest, size = hashlib.sha256(), 0
    try:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            with _told("written"):
                file.write(piece)
        with _told("written"):
            file.flush()
            os.fsync(file.fileno())
    finally:
        with contextlib.suppress(OSError):  # what could not be written was told above
            file.close()
    return Stored(size, digest.hexdigest())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns the errors of the operating system into the store's own."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactMissing("there is no such artifact") from error
    except OSError as error:
        if error.errno in _FULL:
            raise ArtifactStoreFull("the artifact store is full") from error
        raise ArtifactError(f"an artifact could not be {what}: {error.strerror}") from error
