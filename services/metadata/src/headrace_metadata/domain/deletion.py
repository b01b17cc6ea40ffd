"""The states of a pipeline's deletion.

A pipeline is deleted in three durable steps, since two services must agree: it is marked (CLOSING), execution
closes it for new runs, and it is gone (DELETED). A tombstone stays until every owner of its traces has purged
them.
"""

from collections.abc import Collection
from enum import StrEnum

PURGE_OWNERS = frozenset({"execution", "scheduler"})
"""The services that keep something of a pipeline and acknowledge that they have removed it."""


class Deletion(StrEnum):
    """Where the deletion of a pipeline stands."""

    NONE = "NONE"
    CLOSING = "CLOSING"
    DELETED = "DELETED"


TRANSITIONS: dict[Deletion, frozenset[Deletion]] = {
    # CLOSING again is a further attempt, which supersedes the one before.
    Deletion.NONE: frozenset({Deletion.CLOSING}),
    Deletion.CLOSING: frozenset({Deletion.CLOSING, Deletion.NONE, Deletion.DELETED}),
    Deletion.DELETED: frozenset(),
}


def purged_everywhere(acknowledged: Collection[str]) -> bool:
    """Whether every owner has said so, and the tombstone may go."""
    return PURGE_OWNERS.issubset(acknowledged)
