"""The sink that keeps nothing: for tries, tests and benches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from headrace_connectors import gate
from headrace_connectors.errors import configuration
from headrace_connectors.model import (
    Column,
    Guarantee,
    LoadKey,
    ProgressListener,
    Receipt,
    Series,
    Staged,
    no_progress,
)
from headrace_connectors.scratch import Scratch


class DiscardSink:
    """Counts rows and drops them.  Having no effect, it has no ledger: doing it twice is doing it once."""

    guarantee: Guarantee = "EXACTLY_ONCE"

    def __init__(self) -> None:
        self._staged: Staged | None = None

    async def claim(self, key: LoadKey, fence: int) -> Receipt | None:
        """Nothing can have landed."""
        return None

    async def stage(
        self,
        scratch: Scratch,
        relation: str,
        columns: Sequence[Column] = (),
        progress: ProgressListener = no_progress,
    ) -> Staged:
        """Count the rows and their checksum, which also computes a relation that is a view."""
        source = await gate.materialised(scratch, relation)
        try:
            passed = await gate.inspect(scratch, source, await scratch.columns(source), ())
        finally:
            await gate.release(scratch, relation, source)
        progress(passed.rows, 0)
        self._staged = Staged(passed.rows, 0, passed.checksum)
        return self._staged

    async def take_turn(self, series: Series, fence: int) -> Receipt | None:
        """Nothing can have landed."""
        return None

    async def commit(
        self, key: LoadKey, fence: int, cursor: bytes | None = None, series: Series | None = None
    ) -> Receipt:
        """A receipt of what was counted."""
        if self._staged is None:
            raise configuration("NOT_STAGED", f"task {key.task}: commit comes after stage")
        staged = self._staged
        return Receipt(staged.rows, staged.bytes, staged.checksum, cursor, fence, dt.datetime.now(dt.UTC))

    async def receipt(self, key: LoadKey) -> Receipt | None:
        """None: nothing is kept."""
        return None

    async def tombstone(self, key: LoadKey, fence: int | None = None) -> Receipt | None:
        """None: nothing can land."""
        return None

    async def abandon(self) -> None:
        """Forget the count."""
        self._staged = None

    async def close(self) -> None:
        """Nothing to let go of."""
