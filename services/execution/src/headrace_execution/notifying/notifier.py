"""Takes deliveries that are due to their receivers."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import structlog
from headrace_chassis import faults
from headrace_chassis.agents import Agent
from prometheus_client import Counter

from headrace_execution.alerting.recording import Verdict, record, resolve
from headrace_execution.alerting.telling import RECEIVER, failed
from headrace_execution.domain.alerts import Rule
from headrace_execution.domain.deliveries import DELAYS, TELL_AFTER, Delivery, next_try
from headrace_execution.domain.recipe import Channel
from headrace_execution.notifying.outcomes import Delivered, Failed, Outcome, Refused, Sender
from headrace_execution.signals import Signals
from headrace_execution.store.port import Store, Tx

_log = structlog.get_logger(__name__)

TRIES: Final = Counter(
    "hr_notifications_total",
    "Tries to deliver notifications, by channel and outcome: delivered, failed (tried again), parked.",
    ["channel", "outcome"],
)
AT_ONCE = 16
"""How many are on their way at once."""
LEASE = timedelta(seconds=90)
"""Longer than all time limits of a try together."""


class Notifier(Agent):
    """Sends at least once: a delivery is leased, sent, and then removed. Whoever dies in between leaves it to
    be sent again, under the same id.

    One for those that were not tried before, and one for the others (`again`): receivers that do not answer
    hold up what is told to nobody else for longer than a time limit. Any number of replicas share the work.
    """

    interval_seconds = 1.0

    def __init__(
        self,
        store: Store,
        senders: Mapping[Channel, Sender],
        signals: Signals,
        chance: Callable[[], float],
        *,
        again: bool,
    ) -> None:
        self.name = "repeat_notifier" if again else "notifier"
        if again:
            self.interval_seconds = DELAYS[0].total_seconds()  # nothing is due sooner after it has failed
        self._store = store
        self._senders = senders
        self._signals = signals
        self._chance = chance
        self._again = again

    async def run_once(self) -> bool:
        """Sends what is due, some at once; returns whether there may be more."""

        async def claim(tx: Tx) -> list[Delivery]:
            return await tx.deliveries.claim(AT_ONCE, LEASE, again=self._again)

        due = await self._store.run(claim)
        faults.point("execution.notify.claimed")
        ends = await asyncio.gather(*map(self._deliver, due), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end  # the others have come to their ends as well
        return len(due) == AT_ONCE

    async def _deliver(self, delivery: Delivery) -> None:
        outcome = await self._tried(delivery)
        faults.point("execution.notify.sent")
        told, word = await self._store.run(lambda tx: self._settle(tx, delivery, outcome))
        TRIES.labels(str(delivery.channel), word).inc()
        if told:
            self._signals.told()

    async def _tried(self, delivery: Delivery) -> Outcome:
        try:
            return await self._senders[delivery.channel].send(delivery)
        except Exception as error:  # noqa: BLE001 - whatever one delivery does, it must not be tried for ever
            _log.error("a notification failed", delivery_id=str(delivery.id), exc_info=error)
            return Failed("an unexpected error; the log of execution has it")

    async def _settle(self, tx: Tx, delivery: Delivery, outcome: Outcome) -> tuple[bool, str]:
        gone = await tx.pipelines.enter([delivery.pipeline])
        match outcome:
            case Delivered():
                await tx.deliveries.delivered(delivery)
                rule, receiver = Rule.NOTIFICATION_FAILED, delivery.receiver
                return bool(await resolve(tx, delivery.pipeline, rule, RECEIVER, receiver)), "delivered"
            case Failed(reason, retry_after, needs_change):
                wait = next_try(delivery.attempts, self._chance(), retry_after)
                if wait is not None:
                    await tx.deliveries.put_off(delivery, wait, reason)
                    is_told = needs_change or delivery.attempts >= TELL_AFTER
                    message = (
                        f"{_what(delivery)} has not been delivered yet ({delivery.attempts} tries): {reason}"
                    )
                    return is_told and not gone and await _alert(tx, delivery, message), "failed"
                reason = f"{reason}; given up after {delivery.attempts} tries"
            case Refused(reason):
                pass
        await tx.deliveries.park(delivery, reason)
        message = f"{_what(delivery)} was not delivered: {reason}"
        return not gone and await _alert(tx, delivery, message), "parked"


async def _alert(tx: Tx, delivery: Delivery, message: str) -> bool:
    return bool(await record(tx, [Verdict([failed(delivery, message, tx.now)])]))


def _what(delivery: Delivery) -> str:
    return f"notification {delivery.id} by {delivery.channel}"
