"""How much processor time processes take: on a busy machine it says more than the clock."""

from collections.abc import Mapping

import psutil
from headrace_local.home import Home

PROCESSES = ("gateway", "metadata", "execution", "worker", "scheduler", "postgres", "nats")
"""The processes that a run passes through, by the names of their pid files."""


def seconds(pid: int) -> float:
    """Processor time of a process and of all that it has started."""
    total = 0.0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue  # its parent has counted it by now, or does the next time
        total += times.user + times.system + times.children_user + times.children_system
    return total


def spent(home: Home) -> dict[str, float]:
    """Processor time of each process of a stack since it was started, in seconds."""
    return {name: seconds(pid_of(home, name)) for name in PROCESSES}


def pid_of(home: Home, process: str) -> int:
    """The id of a process of a stack."""
    return int(home.pid_file(process).read_text())


def tell(before: Mapping[str, float], after: Mapping[str, float], units: int, unit: str) -> None:
    """Prints what each process has taken between two readings, a unit of work, and all of them together."""
    each = {name: (after[name] - before[name]) / units * 1e3 for name in after}
    print(f"processor time a {unit}:")
    for name, milliseconds in [*each.items(), ("together", sum(each.values()))]:
        print(f"    {name:<10} {milliseconds:6.3f} ms")
