"""What comes of a try to tell somebody. Reasons name no more of a target than its host, since it may be a
secret.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from headrace_execution.domain.deliveries import Delivery


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has taken it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It has not been taken, and is tried again."""

    reason: str
    retry_after: float | None = None
    """After how many seconds the receiver wants to be asked again."""
    needs_change: bool = False
    """Trying again helps once somebody has changed something: that is told at once."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be told: trying again makes no sense."""

    reason: str


Outcome: TypeAlias = Delivered | Failed | Refused


class Sender(Protocol):
    """Tells receivers of one kind."""

    async def send(self, delivery: Delivery) -> Outcome:
        """Tries to tell; never longer than its time limits, and never raises for what a receiver does."""
