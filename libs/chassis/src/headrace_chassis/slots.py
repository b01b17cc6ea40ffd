"""How many streams, or other long calls, may be open at once: in the whole process, and for each caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final

from headrace.common.v1 import reasons_pb2

from headrace_chassis.errors import HeadraceError, Unavailable

_RETRY_SECONDS: Final = 5.0


class StreamSlots:
    """Counts the streams that are open. One for the whole process."""

    def __init__(self, total: int, per_caller: int, counted: str = "stream") -> None:
        """`counted` is what one of them is called, for people."""
        self._counted = counted
        self._total = total
        self._per_caller = per_caller
        self._held: Counter[Hashable] = Counter()
        self._open = 0

    @property
    def open(self) -> int:
        """How many streams are open."""
        return self._open

    def take(self, caller: Hashable) -> Callable[[], None]:
        """Takes a slot, and returns what gives it back; giving it back again does nothing.

        Raises HeadraceError: RATE_LIMITED where the caller has as many as it may, UNAVAILABLE where the
        process has.
        """
        if self._held[caller] >= self._per_caller:
            raise HeadraceError(
                f"a caller may have {self._per_caller} {self._counted}s open at once; end one first",
                reason=reasons_pb2.REASON_RATE_LIMITED,
                metadata={"limit": str(self._per_caller)},
                retry_after=_RETRY_SECONDS,
            )
        if self._open >= self._total:
            raise Unavailable(f"room for another {self._counted}", retry_after=_RETRY_SECONDS)
        self._held[caller] += 1
        self._open += 1
        held = True

        def give_back() -> None:
            nonlocal held
            if not held:
                return
            held = False
            self._open -= 1
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]

        return give_back
