"""All benches, one after the other: what `make bench` prints. Each says its ratios and whether goals are met.

Those that look at a running stack share one in a temporary home; the others start their own.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from headrace_local.testing import StackUnderTest

FOLDER = Path(__file__).parent


def bench(name: str, *arguments: str) -> bool:
    """Runs one; whether it came to its end."""
    print(f"\n== {name}", flush=True)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, str(FOLDER / f"{name}.py"), *arguments], check=False)
    print(f"   ({time.perf_counter() - began:.0f} s)", flush=True)
    return done.returncode == 0


def on_one_stack(benches: Sequence[str]) -> bool:
    """Runs those that need a stack."""
    stack = StackUnderTest()
    try:
        began = time.perf_counter()
        stack.up()
        print(f"the stack was ready after {time.perf_counter() - began:.1f} s (goal 10)")
        place = ("--home", str(stack.home.root))
        ended = [bench(name, *place) for name in benches]
        return all(ended)
    finally:
        stack.remove()


def main() -> None:
    """Runs all; fails where one did not come to its end."""
    ended = [on_one_stack(("memory", "runs", "gateway"))]
    ended += [bench(name) for name in ("json_codecs", "loads", "scaling", "scheduler")]
    if not all(ended):
        raise SystemExit("a bench did not come to its end")


if __name__ == "__main__":
    main()
