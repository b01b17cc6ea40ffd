"""What the service asks of its store for notifications; the conventions are those of `port`."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from headrace_execution.domain.deliveries import Delivery
from headrace_execution.domain.recipe import Notices

MOST_WAITING = 1000
"""How many deliveries of a pipeline may wait at once: a dead receiver of one that fails every second must not
fill the database."""


class Deliveries(Protocol):
    """What is to be told to whom."""

    async def add(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Adds deliveries, to be tried at once; returns those for which too many of their pipeline wait."""

    async def claim(self, limit: int, lease: timedelta, *, again: bool) -> list[Delivery]:
        """Hands out deliveries that are due, those that were tried before (`again`) or the others, with the
        try counted. Whoever has not settled one when the lease is over may find it handed out again."""

    async def delivered(self, delivery: Delivery) -> None:
        """Removes a delivery that has reached its receiver."""

    async def put_off(self, delivery: Delivery, wait: timedelta, reason: str) -> None:
        """Has it tried again after a wait, unless somebody else tries it already."""

    async def park(self, delivery: Delivery, reason: str) -> None:
        """Gives it up, and keeps it with the reason."""

    async def notices(self, pipelines: Collection[UUID]) -> dict[UUID, Notices]:
        """Who is told of pipelines, as their latest runs have it."""

    async def forget_parked(self, age: timedelta, limit: int) -> int:
        """Removes deliveries that were given up so long ago; returns how many."""
