"""Judges runs that have ended: finds what is wrong, and learns what is usual."""

from collections.abc import Sequence
from uuid import UUID

from headrace_execution.alerting.recording import Verdict, record
from headrace_execution.alerting.telling import tell_of_alerts
from headrace_execution.domain.judging import Ended, findings, healing
from headrace_execution.domain.usual import Usual
from headrace_execution.store.port import Tx


async def judge(tx: Tx, ended: Sequence[Ended]) -> None:
    """What the rules find of runs, in the order of their ends, each beside those before it."""
    usual = await tx.alerts.usual({each.pipeline for each in ended if each.sample is not None})
    runs = await tx.alerts.runs([each.run for each in ended if each.is_troubled])
    verdicts: list[Verdict] = []
    learned: dict[UUID, Usual] = {}
    for each in ended:
        known = learned.get(each.pipeline) or usual.get(each.pipeline, Usual())
        found = findings(each, runs.get(each.run), known)
        verdicts.append(Verdict(found, healing(each, found)))
        if each.sample is not None:
            learned[each.pipeline] = known.after(each.sample)
    await tx.alerts.remember(learned)
    await tell_of_alerts(tx, await record(tx, verdicts))
