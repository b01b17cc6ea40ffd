"""The turns of loads that go on from one another, and what their targets know of those before.

A run may end without anybody knowing whether its load has landed: its target went away with the answer. The
cursor has not moved then, and the next run would load the rows again. So a load of incremental sources first
takes its turn in the ledger of its target. From then on nothing of a run before can land late, and the ledger
tells of the last load that did: where the server has not heard of that one, this load goes on from there, and
its receipt tells the server.
"""

from __future__ import annotations

from headrace_connectors.api import Series

from headrace_worker.engine.cursors import caught_up
from headrace_worker.engine.loads import Load
from headrace_worker.engine.run_context import RunContext
from headrace_worker.engine.run_log import RunLog


class Turns:
    """The turns that one attempt at a stage takes."""

    def __init__(self, context: RunContext, log: RunLog) -> None:
        self._context = context
        self._log = log
        self.cursors = dict(context.cursors)
        """Where incremental sources go on, by sink and source, with what targets have told."""

    async def take(self, load: Load) -> None:
        """Shut out what older loads of the same sink have not landed yet, and learn how far they came.

        Raises ConnectorError.
        """
        sink = load.task.key
        load.series = Series(self._context.pipeline_id, sink)
        landed = await load.sink.take_turn(load.series, self._context.fence)
        load.caught_up = caught_up(sink, landed, self._context.cursor_fences)
        self.cursors |= {(sink, source): value for source, value in load.caught_up.items()}
        if load.caught_up and landed is not None:
            self._log.info(
                sink,
                "a run before has landed and could not tell: what is new begins where that one came to",
                fence=landed.fence,
            )
