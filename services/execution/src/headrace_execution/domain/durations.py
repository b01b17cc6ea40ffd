"""How long runs took: a summary that can be added to another, and still tells percentiles.

A histogram whose buckets grow by a constant factor, so that each value is known to two percent whatever its
size: a DDSketch (Masson, Rim and Lee, PVLDB 12, 2019) with as many buckets as it needs, of which a month in
milliseconds takes 541 at the most.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

ACCURACY = 0.02
"""By what share of it a percentile may be off."""

_FACTOR = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_FACTOR = math.log(_FACTOR)
_NONE: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Durations:
    """Some durations, in milliseconds."""

    count: int = 0
    sum: int = 0
    min: int = 0
    """The shortest; 0 where there are none."""
    max: int = 0
    buckets: Mapping[int, int] = field(default_factory=lambda: _NONE)
    """How many are in each bucket: the one numbered n holds those above factor^(n-1), up to factor^n."""

    @classmethod
    def of(cls, milliseconds: Sequence[int]) -> "Durations":
        """These durations."""
        if not milliseconds:
            return cls()
        buckets = Counter(map(_bucket, milliseconds))
        return cls(len(milliseconds), sum(milliseconds), min(milliseconds), max(milliseconds), buckets)

    def __add__(self, other: "Durations") -> "Durations":
        if not self.count or not other.count:
            return self if self.count else other
        buckets = dict(self.buckets)
        for bucket, count in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        return Durations(
            self.count + other.count,
            self.sum + other.sum,
            min(self.min, other.min),
            max(self.max, other.max),
            buckets,
        )

    @property
    def average(self) -> int | None:
        """The mean, rounded; None where there are none."""
        return round(self.sum / self.count) if self.count else None

    def percentile(self, share: float) -> int | None:
        """A duration that this share of all did not exceed, within the accuracy; None where there are
        none."""
        rank = max(math.ceil(share * self.count), 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                middle = 2 * _FACTOR**bucket / (_FACTOR + 1)
                return min(max(round(middle), self.min), self.max)
        return None


def _bucket(milliseconds: int) -> int:
    return math.ceil(math.log(max(milliseconds, 1)) / _LOG_FACTOR)
