"""Some hundreds of seeds of the simulation, and that it can be trusted: it replays, and it notices."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .__main__ import told
from .clocks import silence
from .mutations import MUTATIONS, Mutation
from .simulation import simulate

pytestmark = pytest.mark.timeout(900)  # ten seconds at the most on an idle machine

SEEDS = 300
NOTICED_WITHIN = 400
"""So many seeds at the most must show that a rule is broken; most show it in the first few."""

WHAT_HAPPENS = (
    "is COMPLETED",
    "is FAILED",
    "is CANCELLED",
    "(held)",
    "to settle",
    "WAITING",
    "SKIPPED",
    "(WORKER_LOST)",
    "(STAGE_CRASHED)",
    "(ATTEMPT_TIMEOUT)",
    "(COMMIT_UNKNOWN)",
    "is killed before a commit",
    "is killed after a commit",
    "is asked to go down",
    "goes on",
    "the stream of",
    "the database is away",
    "the broker goes away",
    "is refused: PIPELINE_DELETING",
    "is refused: CONCURRENCY_LIMIT",
    "is SKIPPED, no run OVERLAP_RUNNING",
    "is SKIPPED, no run QUEUE_FULL",
    "OVERLAP_CANCELLING",
    "is tried again as run",
    "takes over stage",
    "is refused: NOT_RETRYABLE",
    "of user 0 is taken",
    "is refused: SIGNAL_RECEIVED",
    "is refused: SIGNAL_TOO_LATE",
    "(SIGNAL_TIMEOUT)",
    "a probe is answered",
    "the user who cancelled is told CANCELLED",
    "the user who cancelled is told COMPLETED",
)
"""What the seeds must bring about, or they prove less than they seem to."""


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    with silence():
        yield


def test_all_is_well_whatever_goes_wrong() -> None:
    missing = set(WHAT_HAPPENS)

    for seed in range(1, SEEDS + 1):
        verdict = simulate(seed)
        assert verdict.wrong is None, told(verdict)
        history = "\n".join(verdict.trace)
        missing -= {what for what in missing if what in history}

    assert not missing


def test_a_seed_plays_the_same_each_time_and_in_each_process() -> None:
    seeds = range(1, 9)
    here = [simulate(seed).fingerprint for seed in seeds]

    program = (
        "from tests.simulation.simulation import simulate\n"
        f"print(*(simulate(seed).fingerprint for seed in range({seeds.start}, {seeds.stop})))"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )

    assert [simulate(seed).fingerprint for seed in seeds] == here
    assert there.stdout.splitlines()[-1].split() == here


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_rule_that_is_broken_is_noticed(mutation: Mutation) -> None:
    for seed in range(1, NOTICED_WITHIN + 1):
        with mutation():
            verdict = simulate(seed)
        if verdict.wrong is not None:
            return
    pytest.fail(f"nobody noticed within {NOTICED_WITHIN} seeds")
