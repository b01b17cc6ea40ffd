"""The resident memory of an idle stack, each shared page counted once, beside the goal.

python benches/memory.py --home .headrace
"""

import argparse
import time
from pathlib import Path

import psutil
from headrace_local.home import Home

GOAL_MIB = 900


def proportional(pid: int) -> int:
    """Bytes of a process and of all that it has started; a page that several share counts once in all."""
    total = 0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # it has just ended
    return total


def processes(home: Home) -> dict[str, int]:
    """The ids of a stack's processes by their names; not the one that is the parent of them all."""
    found = {path.stem: int(path.read_text()) for path in sorted(home.run.glob("*.pid"))}
    return {
        name: pid
        for name, pid in found.items()
        if not any(psutil.Process(other).ppid() == pid for other in found.values())
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".headrace"))
    home = Home(parser.parse_args().home)
    time.sleep(5)  # until what a start has left behind is gone
    each = {name: proportional(pid) >> 20 for name, pid in processes(home).items()}
    print("idle: " + ", ".join(f"{name} {size} MiB" for name, size in each.items()))
    together = sum(each.values())
    print(f"together {together} MiB (goal {GOAL_MIB}: {'met' if together <= GOAL_MIB else 'missed'})")


if __name__ == "__main__":
    main()
