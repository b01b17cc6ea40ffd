"""The keys of advisory locks that are named by pipelines."""

from collections.abc import Collection
from uuid import UUID


def keys_of(pipelines: Collection[UUID]) -> list[int]:
    """A hash of 32 bits for each pipeline, sorted: everyone takes locks in the same order. Pipelines whose
    hashes meet wait for one another, no more."""
    return sorted({int.from_bytes(pipeline.bytes[-4:], "big", signed=True) for pipeline in pipelines})
