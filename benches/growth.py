"""What processes hold on to, counted so that growth shows and mere use of what is shared does not."""

import os
from collections import Counter

import psutil


def own_memory(pid: int) -> int:
    """Bytes of a process and of all that it has started, without memory that was made to be shared.

    PostgreSQL's shared buffers have a fixed size, but count for those that have touched them: with them it
    would seem to grow until all have been used once.
    """
    return sum(_rollup(each, "Pss") - _rollup(each, "Pss_Shmem") for each in family(pid))


def shared_memory(pid: int) -> int:
    """Bytes of the rest, each page once."""
    return sum(_rollup(each, "Pss_Shmem") for each in family(pid))


def open_files(pid: int) -> int:
    """Open files, sockets and pipes of a process and all that it has started.

    What several of them have open counts as often as the one that has it open most often: each of
    PostgreSQL's servers keeps the files of the tables open that it has used, which is no leak.
    """
    together: Counter[str] = Counter()
    for each in family(pid):
        together |= _names(each)
    return together.total()


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def _rollup(pid: int, field: str) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return 0  # it has just ended


def _names(pid: int) -> Counter[str]:
    folder = f"/proc/{pid}/fd"
    names: Counter[str] = Counter()
    try:
        entries = os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return names  # it has just ended
    for entry in entries:
        try:
            names[os.readlink(f"{folder}/{entry}")] += 1
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just been closed
    return names
