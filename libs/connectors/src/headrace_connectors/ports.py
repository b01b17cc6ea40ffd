"""What every source and every sink does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from headrace_connectors.model import (
    Column,
    Guarantee,
    LoadKey,
    ProgressListener,
    Receipt,
    Series,
    SourceResult,
    Staged,
    no_progress,
)
from headrace_connectors.previews import ReadPreview
from headrace_connectors.scratch import Scratch


@runtime_checkable
class Source(Protocol):
    """Something that can be read into a scratch database."""

    async def columns(self) -> list[Column]:
        """The columns a load will bring, in order.

        :raises ConnectorError: TABLE_NOT_FOUND, COLUMN_NOT_FOUND, and what connecting can meet.
        """
        ...

    async def load(
        self, scratch: Scratch, relation: str, progress: ProgressListener = no_progress
    ) -> SourceResult:
        """Read everything into a new table ``relation`` of ``scratch``; a table left by an earlier try is
        replaced.

        Cancelling this call stops the query at the server before it returns.
        """
        ...

    async def preview(self, scratch: Scratch) -> ReadPreview:
        """What :meth:`load` would do now; no row is moved.

        :raises ConnectorError: as :meth:`load`, as far as it can be seen without the rows.
        """
        ...

    async def close(self) -> None:
        """Stop what still runs at the server and let go of the connection; safe to call again."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Something that takes a relation once.  Calls come in the order claim, stage, commit; any may be
    retried."""

    @property
    def guarantee(self) -> Guarantee:
        """What a retried load amounts to at this target."""
        ...

    async def claim(self, key: LoadKey, fence: int) -> Receipt | None:
        """Commit ``fence`` in the target's ledger, which shuts out every older attempt of the same load.

        :returns: the receipt when the load has landed already (there is nothing left to do), else None.
        :raises FencedOut: when a newer attempt or a tombstone stands there.
        """
        ...

    async def stage(
        self,
        scratch: Scratch,
        relation: str,
        columns: Sequence[Column] = (),
        progress: ProgressListener = no_progress,
    ) -> Staged:
        """Put the rows of ``relation`` beside the target, invisible to its readers; rebuilt from nothing on a
        retry.

        ``columns`` describes the relation where the caller knows more than the scratch does (``native``
        types).

        :raises ConnectorError: of class DATA, naming column, row and the kind of value, when something does
            not fit.
        """
        ...

    async def take_turn(self, series: Series, fence: int) -> Receipt | None:
        """Commit in the ledger that it is the turn of the load with ``fence``: from now on none of the series
        with an older one can land.

        :returns: the receipt of the last load of the series that landed, if one has.
        """
        ...

    async def commit(
        self, key: LoadKey, fence: int, cursor: bytes | None = None, series: Series | None = None
    ) -> Receipt:
        """Make the staged rows visible and write the receipt, in one transaction; for ``series``, too, of
        which it must be this load's turn.

        A commit whose answer was lost is settled by reading the receipt anew.

        :raises FencedOut: when ``fence`` is not the one in the ledger any more; the target is untouched.
        """
        ...

    async def receipt(self, key: LoadKey) -> Receipt | None:
        """The receipt of ``key``, if it landed."""
        ...

    async def tombstone(self, key: LoadKey, fence: int | None = None) -> Receipt | None:
        """Make sure no attempt with a fence up to ``fence`` (None: any attempt, ever) can land from now on.

        A later attempt with a higher fence may still claim the load: that is how a cancelled run is retried.

        :returns: the receipt when the load had landed before, else None.
        """
        ...

    async def abandon(self) -> None:
        """Stop what runs at the server and drop the staged rows; the ledger stays as it is."""
        ...

    async def close(self) -> None:
        """Let go of the connection; safe to call again."""
        ...
