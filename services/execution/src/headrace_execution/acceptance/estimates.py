"""How long runs of pipelines will probably take: asked of the store once in a while, not for each run."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from headrace_execution.acceptance.sized_cache import SizedCache
from headrace_execution.domain.usual import Usual
from headrace_execution.store.port import Tx

KEPT_FOR: Final = timedelta(seconds=30)
"""How long an estimate is good. It is a median of many runs, which the next few hardly move."""
UNKNOWN_FOR: Final = timedelta(seconds=1)
"""How long it is believed that nothing is known of a pipeline: its first run may end at any moment."""
CAPACITY: Final = 20_000
"""Of how many pipelines estimates are kept."""


class Estimates:
    """The estimates of the pipelines that were run last."""

    def __init__(self) -> None:
        self._known: SizedCache[UUID, tuple[datetime, int | None]] = SizedCache(CAPACITY)

    async def refresh(self, tx: Tx, pipelines: Collection[UUID]) -> None:
        """Asks for the estimates that are missing or too old; most batches of runs ask nothing."""
        asked = [pipeline for pipeline in pipelines if not self._is_known(pipeline, tx.now)]
        if not asked:
            return
        usual = await tx.alerts.usual(asked)
        for pipeline in asked:
            self._known.put(pipeline, (tx.now, usual.get(pipeline, Usual()).expected_ms), 1)

    def of(self, pipeline: UUID) -> int | None:
        """How long a run of it will take from its start to its end, in milliseconds; None where nothing is
        known."""
        known = self._known.get(pipeline)
        return known[1] if known is not None else None

    def _is_known(self, pipeline: UUID, now: datetime) -> bool:
        known = self._known.get(pipeline)
        if known is None:
            return False
        asked_at, expected = known
        return now - asked_at < (UNKNOWN_FOR if expected is None else KEPT_FOR)
