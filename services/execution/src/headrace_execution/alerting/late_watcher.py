"""Finds runs that go on for longer than usual."""

from headrace_chassis.agents import Agent

from headrace_execution.alerting.recording import Verdict, record
from headrace_execution.alerting.telling import tell_of_alerts
from headrace_execution.domain.alerts import AlertChanged
from headrace_execution.domain.judging import late
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx

BATCH = 200


class LateWatcher(Agent):
    """Looks at live runs, by one statement for all of them; each is found late once."""

    name = "late_watcher"
    interval_seconds = 10.0

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals

    async def run_once(self) -> bool:
        """Makes alerts of some runs that are late; returns whether there may be more."""
        found, told = await self._store.run(self._look)
        if told:
            self._signals.told()
        return found == BATCH

    async def _look(self, tx: Tx) -> tuple[int, list[AlertChanged]]:
        seen = await tx.alerts.overdue(BATCH)
        if not seen:
            return 0, []
        pipelines = {going.pipeline for going in seen}
        gone = await tx.pipelines.enter(pipelines)
        await tx.alerts.lock(pipelines - gone)
        # Again, now that nobody else can judge these runs: one that has ended meanwhile is not late any more.
        going = [each for each in await tx.alerts.overdue(BATCH) if each.pipeline in pipelines - gone]
        found = [finding for each in going if (finding := late(each, tx.now)) is not None]
        told = await record(tx, [Verdict(found)])
        await tell_of_alerts(tx, told)
        return len(found), told
