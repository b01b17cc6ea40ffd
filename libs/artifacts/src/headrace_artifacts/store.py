"""What every artifact store does."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol


class ArtifactError(Exception):
    """The store could not do what it was asked. The message names no credential and no place."""


class ArtifactMissing(ArtifactError):  # noqa: N818 - it names a fact
    """There is no artifact under this key: it was never there, or was removed."""


class ArtifactStoreFull(ArtifactError):  # noqa: N818 - it names a fact
    """There is no room for it."""


@dataclass(frozen=True)
class Stored:
    """What was stored: its size in bytes, and the SHA-256 of them in hexadecimal."""

    bytes: int
    sha256: str


class Reader(Protocol):
    """An artifact that is being read, from where it was opened."""

    @property
    def size(self) -> int:
        """The bytes of the whole artifact."""

    def read(self, most: int) -> bytes:
        """The next bytes, up to so many; none at the end. Raises ArtifactError."""

    def close(self) -> None:
        """Lets go of it; again does nothing."""


class ArtifactStore(Protocol):
    """Objects under keys. All calls block; a store may be used from many threads.

    Raises ArtifactError where it cannot be reached or refuses.
    """

    def put(self, key: str, pieces: Iterable[bytes]) -> Stored:
        """Stores an object as a whole or not at all; where it returns, it stays.

        An error that `pieces` raises is passed on, and nothing is stored. Raises ArtifactStoreFull.
        """

    def open(self, key: str, start: int = 0) -> Reader:
        """Reads an object from an offset. Raises ArtifactMissing."""

    def delete(self, keys: Collection[str]) -> None:
        """Removes objects; one that is not there is no error."""

    def delete_below(self, prefix: str) -> None:
        """Removes all objects whose keys begin with the prefix and a slash."""


def read_all(store: ArtifactStore, key: str, most: int) -> bytes:
    """A small object as a whole. Raises ArtifactError, also where it is larger than `most` bytes."""
    reader = store.open(key)
    try:
        if reader.size > most:
            raise ArtifactError(f"an artifact of {reader.size} bytes where at most {most} were expected")
        parts = []
        while piece := reader.read(most):
            parts.append(piece)
    finally:
        reader.close()
    return b"".join(parts)
