"""Rate limits: a token bucket for each caller (tenant and subject)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from headrace_chassis.errors import RateLimited

from .exchange import Header

_MAX_CALLERS = 10_000
"""How many buckets are kept. The one that was used least recently goes first; it has long been full again."""


class RateLimiter:
    """Admits `rate` requests a second for each caller, and `burst` at once. The clock is monotonic, in
    seconds."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[Hashable, list[float]] = OrderedDict()
        self._policy: Header = (
            b"ratelimit-policy",
            f'"default";q={burst};w={max(round(burst / rate), 1)}'.encode(),
        )

    @property
    def callers(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)

    def admit(self, caller: Hashable) -> list[Header]:
        """Takes a token and returns the headers that tell how many are left
        (draft-ietf-httpapi-ratelimit-headers).

        Raises RateLimited with the seconds until there is a token again.
        """
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = [self._burst, now]
            if len(self._buckets) > _MAX_CALLERS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
        left = min(self._burst, bucket[0] + (now - bucket[1]) * self._rate)
        bucket[1] = now
        if left < 1.0:
            bucket[0] = left
            raise RateLimited((1.0 - left) / self._rate)
        bucket[0] = left = left - 1.0
        seconds = int((self._burst - left) / self._rate) + 1
        return [self._policy, (b"ratelimit", b'"default";r=%d;t=%d' % (left, seconds))]
