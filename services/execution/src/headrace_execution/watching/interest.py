"""Which runs are watched in other replicas, so that a change is told to them and to nobody else.

A replica says what it watches when it begins to, and again and again while it does; what it says is believed
for a while. Nothing depends on it: each replica also looks for changes by itself.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from uuid import UUID

REPEATED_SECONDS = 5.0
"""How often a replica says what it watches."""

BELIEVED_SECONDS = 16.0
"""How long it is believed: three repetitions may be lost."""

CAPACITY = 20_000
"""How many runs of others are remembered; changes of further ones are found by looking."""

IDS_A_WORD = 1000

_WATCHED = b"watched "
_CHANGED = b"changed "


class Interest:
    """The runs in which other replicas have shown interest. The clock is monotonic, in seconds."""

    def __init__(self, origin: UUID, clock: Callable[[], float]) -> None:
        self._origin = origin.hex.encode("ascii")
        self._clock = clock
        self._until: dict[UUID, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def among(self, runs: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that somebody else watches."""
        return [run for run in runs if run in self._until]

    def watched_words(self, runs: Collection[UUID]) -> Iterator[bytes]:
        """What to say for these runs to be told of."""
        return self._words(_WATCHED, runs)

    def changed_words(self, runs: Collection[UUID]) -> Iterator[bytes]:
        """What to say of runs that have changed."""
        return self._words(_CHANGED, runs)

    def hear(self, word: bytes) -> tuple[list[UUID], list[UUID]]:
        """Takes in what a replica said: returns the runs that it has begun to watch, and those of which it
        says that they have changed.

        What this replica has said itself, and what it does not understand, is nothing.
        """
        if word.startswith(_WATCHED):
            return self._note(self._ids(word, _WATCHED)), []
        if word.startswith(_CHANGED):
            return [], self._ids(word, _CHANGED)
        return [], []

    def forget_stale(self) -> None:
        """Forgets what has not been said for a while."""
        now = self._clock()
        for run in [run for run, until in self._until.items() if until <= now]:
            del self._until[run]

    def _note(self, runs: Iterable[UUID]) -> list[UUID]:
        until = self._clock() + BELIEVED_SECONDS
        new = []
        for run in runs:
            if run not in self._until:
                if len(self._until) >= CAPACITY:
                    continue
                new.append(run)
            self._until[run] = until
        return new

    def _words(self, kind: bytes, runs: Collection[UUID]) -> Iterator[bytes]:
        names = [run.hex.encode("ascii") for run in runs]
        for start in range(0, len(names), IDS_A_WORD):
            yield b" ".join((kind + self._origin, *names[start : start + IDS_A_WORD]))

    def _ids(self, word: bytes, kind: bytes) -> list[UUID]:
        origin, *names = word.removeprefix(kind).decode("ascii", "replace").split(" ")
        if origin.encode() == self._origin:
            return []
        try:
            return [UUID(hex=name) for name in names]
        except ValueError:
            return []  # nobody of ours said it
