"""The life of a process: the first signal drains it, the second ends it."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from headrace_chassis import faults
from headrace_chassis.settings import SettingsError

_log = structlog.get_logger(__name__)

EXIT_SETTINGS = 78
"""The exit code for settings that do not do (EX_CONFIG of sysexits.h)."""

EXIT_FORCED = 130
"""The exit code after a second signal."""


class Stop:
    """Says when the process should end."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Whether the process should end."""
        return self._event.is_set()

    def set(self) -> None:
        """Says that the process should end."""
        self._event.set()

    async def wait(self) -> None:
        """Returns when the process should end."""
        await self._event.wait()


def run(main: Callable[[Stop], Awaitable[None]]) -> None:
    """Runs a process on uvloop until `main` returns, then exits: with 0, or with 1 where it raised.

    `main` builds what it needs in an AsyncExitStack, leaves first, waits for `stop`, and drains while the
    stack unwinds: servers before the clients they use. The first SIGTERM or SIGINT sets `stop`; the second
    exits at once. Settings that do not do are told in one line, without a traceback.
    """
    faults.arm(os.environ)
    _spare_the_collector()
    try:
        uvloop.run(_watched(main))
    except SettingsError as error:
        sys.stderr.write(f"settings: {error}\n")
        sys.exit(EXIT_SETTINGS)
    except Exception as error:  # noqa: BLE001 - the end of the process tells why
        _log.error("the process failed", exc_info=error)
        sys.exit(1)


def _spare_the_collector() -> None:
    # All modules are imported by now and stay: they need not be looked at again and again. Requests leave few
    # cycles behind, and with Python's own threshold of 700 objects a busy service spent a sixth of its time
    # looking for them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _watched(main: Callable[[Stop], Awaitable[None]]) -> None:
    stop = Stop()

    def on_signal(name: str) -> None:
        if stop.is_set:
            _log.warning("second signal: exiting at once", signal=name)
            os._exit(EXIT_FORCED)
        _log.info("draining", signal=name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    await main(stop)
