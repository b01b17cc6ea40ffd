"""Plays any number of seeds: `python -m tests.simulation --seeds 5000 --first 1`."""

import argparse
import sys
import time

from .playing import played
from .simulation import Verdict


def told(verdict: Verdict) -> str:
    """What went wrong, how it came to that, and how to see it again."""
    history = "\n".join(verdict.trace)
    return (
        f"{history}\n\nseed {verdict.seed}: {verdict.wrong}\n"
        f"again: make simulate FIRST={verdict.seed} SEEDS=1\n"
    )


def main() -> int:
    """Plays seeds until one goes wrong; returns 1 then."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=5000, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--trace", action="store_true", help="show what happens, also where all is well")
    asked = parser.parse_args()
    begun = time.perf_counter()
    runs = landings = seconds = 0.0
    for count, verdict in enumerate(played(asked.first, asked.seeds), start=1):
        runs, landings = runs + verdict.runs, landings + verdict.landings
        seconds += verdict.seconds
        if verdict.wrong is not None:
            sys.stderr.write(told(verdict))
            return 1
        if asked.trace:
            sys.stdout.write("\n".join(verdict.trace) + "\n")
        if count % 1000 == 0 or count == asked.seeds:
            rate = 60 * count / (time.perf_counter() - begun)
            sys.stdout.write(
                f"{count} seeds are well: {runs:.0f} runs, {landings:.0f} loads, "
                f"{seconds / 3600:.1f} simulated hours; {rate:.0f} seeds a minute\n"
            )
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
