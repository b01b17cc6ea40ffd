"""Makes the moments that rules are applied with."""

import random
from collections.abc import Callable
from datetime import datetime

from headrace_execution.domain.moment import Moment, Patience


class Moments:
    """The patience of this installation and its source of chance, to go with the store's clock."""

    def __init__(self, patience: Patience | None = None, chance: Callable[[], float] = random.random) -> None:
        self.patience = patience or Patience()
        self._chance = chance

    def at(self, now: datetime) -> Moment:
        """The moment of a transaction."""
        return Moment(now, self._chance, self.patience)
