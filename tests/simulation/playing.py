"""Plays seeds on each processor at once."""

import os
from collections.abc import Iterator
from multiprocessing import get_context

from .clocks import silence
from .simulation import Verdict, simulate


def _played(seed: int) -> Verdict:
    with silence():
        return simulate(seed)


def played(first: int, seeds: int) -> Iterator[Verdict]:
    """The verdicts in the order of their seeds, whichever process has played each."""
    # The same seed gives the same verdict wherever it is played.
    with get_context("spawn").Pool(min(os.cpu_count() or 1, seeds)) as processes:
        yield from processes.imap(_played, range(first, first + seeds), chunksize=10)
