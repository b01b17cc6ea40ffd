"""Clocks that the services' code does not take as arguments, for as long as a simulation lasts."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import structlog
from headrace_execution.servicers import workers as servicer
from headrace_execution.workers.pool import Session
from headrace_worker import server_link

from .virtual_loop import VirtualLoop

PROGRESS_SECONDS = 1.0
"""How often workers report: the less often, the more seeds a minute."""


@contextmanager
def simulated_clocks(loop: VirtualLoop) -> Iterator[None]:
    """Has sessions go by the loop's clock."""
    session = functools.partial(Session, monotonic=loop.time)
    with (
        mock.patch.object(servicer, "Session", session),
        mock.patch.object(server_link, "_PROGRESS_SECONDS", PROGRESS_SECONDS),
    ):
        yield


@contextmanager
def silence() -> Iterator[None]:
    """Has nothing logged: thousands of seeds have much to tell, and their traces tell it."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        with warnings.catch_warnings():
            # What a killed process was about to begin is not begun.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        structlog.configure(**before)
