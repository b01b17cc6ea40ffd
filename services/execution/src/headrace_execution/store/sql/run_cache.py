"""Live runs as this process has committed them last, so that most need not be read again."""

from collections import OrderedDict
from collections.abc import Iterable
from uuid import UUID

from headrace_execution.domain.run import Run


class RunCache:
    """Runs by id and revision.

    The revision of a run grows with every change of it or of its stages and tasks, under its lock, and what
    is kept here was committed: a run of the revision that its locked row has is that row and all that
    belongs to it. An old one is never found, whoever has changed the run since.
    """

    def __init__(self, capacity: int = 2000) -> None:
        self._capacity = capacity
        self._runs: OrderedDict[UUID, Run] = OrderedDict()

    def get(self, run_id: UUID, revision: int) -> Run | None:
        """The run, if it is at hand in this revision."""
        run = self._runs.get(run_id)
        return run if run is not None and run.revision == revision else None

    def committed(self, runs: Iterable[Run]) -> None:
        """Keeps runs as they were committed; those that have ended are let go."""
        for run in runs:
            self._runs.pop(run.id, None)
            if not run.is_final:
                self._runs[run.id] = run
        while len(self._runs) > self._capacity:
            self._runs.popitem(last=False)
