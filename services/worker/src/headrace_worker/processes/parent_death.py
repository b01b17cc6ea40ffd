"""A process that dies with the one that started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


class Orphaned(Exception):  # noqa: N818 - a state, and it reads as one where it is caught
    """The parent was gone before the kernel could be asked to watch it."""


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux).

    Raises:
        OSError: when the kernel refuses.
        Orphaned: when the parent has died already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl(PR_SET_PDEATHSIG): {os.strerror(errno)}")
    # The parent may have died before the call: then nobody would ever tell.
    if os.getppid() != parent_pid:
        raise Orphaned(f"process {parent_pid} is gone")
