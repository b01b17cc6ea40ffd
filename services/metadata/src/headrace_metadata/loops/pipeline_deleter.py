"""Carries on deletions that a crash or a lost answer has left half done."""

from datetime import timedelta

import structlog
from headrace_chassis.agents import Agent
from headrace_chassis.errors import HeadraceError

from headrace_metadata.application.deletion import QUIET, PipelineDeletion

_log = structlog.get_logger(__name__)
_BATCH = 10


class PipelineDeleter(Agent):
    """Takes over deletions that nobody has worked at for a while; any number of replicas share them."""

    name = "pipeline_deleter"
    interval_seconds = 15.0

    def __init__(self, deletion: PipelineDeletion, quiet: timedelta = QUIET) -> None:
        self._deletion = deletion
        self._quiet = quiet

    async def run_once(self) -> bool:
        """Tries each abandoned deletion once; True where there may be more.

        One that fails again is left for the next time: it was marked as tried when it was taken.
        """
        attempts = await self._deletion.take_abandoned(self._quiet, _BATCH)
        for attempt in attempts:
            try:
                await self._deletion.carry_on(attempt)
            except HeadraceError as error:
                _log.info(
                    "a deletion was not finished", pipeline_id=str(attempt.pipeline_id), reason=error.code
                )
        return len(attempts) == _BATCH
