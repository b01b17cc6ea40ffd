"""The time, the chance and the patience that rules are applied with: arguments, so that rules stay pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Patience:
    """How long this installation waits for what may never come."""

    stop_grace: timedelta = timedelta(seconds=10)
    """What a worker is given to stop an assignment by itself before it kills it."""
    stop_limit: timedelta = timedelta(seconds=20)
    """After this a worker that was told to stop and has not is taken its lease away."""
    timeout_slack: timedelta = timedelta(seconds=5)
    """Workers stop an attempt at its timeout by themselves; the server follows this much later."""
    settle_limit: timedelta = timedelta(seconds=60)
    """After this a stage whose loads nobody could settle ends unsettled, with a warning."""
    settle_retry: timedelta = timedelta(seconds=2)
    """The wait before settling is tried again."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One application of the rules."""

    now: datetime
    """The database's clock."""
    chance: Callable[[], float]
    """A number in [0, 1): the jitter of retries."""
    patience: Patience = field(default_factory=Patience)
