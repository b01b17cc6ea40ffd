"""Named points at which tests kill, stop or delay a real process.

Code calls `point("execution.fold.before_commit")` where dying at just that moment is worth trying. It does
nothing, and costs some ten nanoseconds, unless the environment variable FAULT_POINTS_DIR named a folder when
the process started. Nothing else arms a point: no setting file, no request and no message.

In that folder, a file named as the point says what happens there: an action, and at which passage of a
process since the file is there (1 where it is left out). The first process that comes so far takes the file
away, so that it happens once and not again in the process that replaces it:

    kill 3      SIGKILL to this process at the third passage
    stop        SIGSTOP: the process stands still until SIGCONT
    sleep 2 1.5 the whole process stands still for 1.5 seconds at the second passage

What happened is left as `<point>.<process id>`.
"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "FAULT_POINTS_DIR"
"""Only tests set it."""

_armed: "FaultPoints | None" = None


def point(name: str) -> None:
    """A place worth dying at; see the module."""
    if _armed is not None:
        _armed.passed(name)


def arm(environment: Mapping[str, str]) -> None:
    """Looks, once at the start of a process, whether it is one that tests may harm."""
    global _armed
    folder = environment.get(VARIABLE)
    _armed = FaultPoints(Path(folder)) if folder else None


class FaultPoints:
    """The points of one process, armed by the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passages: dict[tuple[str, int, int], int] = {}

    def passed(self, name: str) -> None:
        """Does what the point's file says, where there is one and it is time."""
        file = self._folder / name
        try:
            found = file.stat()
            action, *more = file.read_text().split()
        except FileNotFoundError:
            return
        order = (name, found.st_ino, found.st_mtime_ns)
        self._passages[order] = count = self._passages.get(order, 0) + 1
        if count < int(more[0] if more else 1):
            return
        try:
            file.rename(self._folder / f"{name}.{os.getpid()}")
        except FileNotFoundError:
            return  # another process was faster
        _do(action, float(more[1]) if len(more) > 1 else 0.0)


def _do(action: str, seconds: float) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(seconds)
        case _:
            raise ValueError(f"a fault point can kill, stop or sleep, not {action!r}")
