"""Artifacts in an object store, S3 or Google Cloud Storage, through the file systems of pyarrow.

An object appears when its upload is completed. pyarrow cannot give an upload up, so that one that broke off
is completed and removed: as its key is new, nobody looked for it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow
from pyarrow import fs

from headrace_artifacts.keys import check_key
from headrace_artifacts.store import ArtifactError, ArtifactMissing, Stored

_BUFFER = 1024 * 1024


def open_remote(url: str) -> RemoteStore:
    """The store behind an s3:// or gs:// URL.

    Raises:
        ValueError: when pyarrow cannot make sense of its options.
    """
    try:
        system, path = fs.FileSystem.from_uri(url)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"the URL of the artifact store is not valid: {error}") from error
    return RemoteStore(system, path)


class RemoteStore:
    """The objects below a path of a pyarrow file system."""

    def __init__(self, system: fs.FileSystem, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def put(self, key: str, pieces: Iterable[bytes]) -> Stored:
        """See the protocol."""
        path = self._path(key)
        digest, size = hashlib.sha256(), 0
        with _told("written"):
            stream = self._system.open_output_stream(path)
        try:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                with _told("written"):
                    stream.write(piece)
            with _told("written"):
                stream.close()
        except BaseException:
            with contextlib.suppress(OSError):  # the error that is passed on says what happened
                stream.close()
            with contextlib.suppress(OSError):
                self._system.delete_file(path)
            raise
        return Stored(size, digest.hexdigest())

    def open(self, key: str, start: int = 0) -> RemoteReader:
        """See the protocol."""
        with _told("read"):
            file = self._system.open_input_file(self._path(key))
            try:
                size = file.size()
                file.seek(min(start, size))
            except BaseException:
                file.close()
                raise
            return RemoteReader(file, size)

    def delete(self, keys: Collection[str]) -> None:
        """See the protocol."""
        for key in keys:
            with _told("removed"), contextlib.suppress(FileNotFoundError):
                self._system.delete_file(self._path(key))

    def delete_below(self, prefix: str) -> None:
        """See the protocol."""
        path = self._path(prefix)
        below = fs.FileSelector(path, allow_not_found=True, recursive=True)
        with _told("removed"):
            if not self._system.get_file_info(below):
                return
            # Google's removes what is there and then misses the folder, which has no object of its own.
            with contextlib.suppress(FileNotFoundError):
                self._system.delete_dir(path)
            if self._system.get_file_info(below):
                raise ArtifactError("not all artifacts could be removed")

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"


class RemoteReader:
    """An object that is being read."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, most: int) -> bytes:
        """See the protocol."""
        with _told("read"):
            data: bytes = self._file.read(min(most, _BUFFER))
        return data

    def close(self) -> None:
        """See the protocol."""
        self._file.close()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns pyarrow's errors, which are the operating system's, into the store's own. Their text stays
    inside: it names hosts and buckets.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactMissing("there is no such artifact") from error
    except OSError as error:
        raise ArtifactError(
            f"an artifact could not be {what}: the artifact store does not answer or refuses"
        ) from error
