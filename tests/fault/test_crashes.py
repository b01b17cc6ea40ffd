"""kill -9 of every process, at named points and at random moments, while pipelines run."""

import random
import secrets
import time
from collections import Counter

import pytest

from .checking import Reference, check_all
from .cluster import OURS, Cluster
from .mixing import Mix
from .striking import (
    SERVICE_POINTS,
    STAGE_POINTS,
    strike_at_random,
    strike_service,
    strike_services,
    strike_stage,
)
from .submitting import SteadyLoad
from .workload import Places

FEW_POINTS = (
    "gateway.forward.after",
    "metadata.write.before_commit",
    "execution.accept.committed",
    "execution.claim.committed",
    "execution.fold.before_commit",
    "execution.signal.committed",
    "outbox.publish.after",
    "worker.result.before_send",
)


def test_a_few_points(cluster: Cluster, places: Places, reference: Reference) -> None:
    with (
        Mix(cluster, places, rounds=2) as mix,
        SteadyLoad(cluster, places, at_least=35, backlog=14) as load,
    ):
        strike_services(cluster, FEW_POINTS, load.check)
        strike_stage(cluster, "worker.load.copying", load.check, alone=False)
        strike_stage(cluster, "worker.commit.after", load.check, alone=True)

    check_all(cluster, load.submitted, reference)
    mix.verify()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("round_number", [1, 2])
def test_all_points(cluster: Cluster, places: Places, reference: Reference, round_number: int) -> None:
    killed: Counter[str] = Counter()
    with Mix(cluster, places) as mix, SteadyLoad(cluster, places, at_least=200) as load:
        for point in SERVICE_POINTS:
            killed[strike_service(cluster, point, load.check, passage=round_number)] += 1
        for point in STAGE_POINTS:
            strike_stage(cluster, point, load.check, alone=False)
            strike_stage(cluster, point, load.check, alone=True)

    check_all(cluster, load.submitted, reference)
    mix.verify()
    print(f"killed {dict(killed)}, accepted {len(load.submitted.runs)}, met {dict(load.submitted.answers)}")
    print(f"mixed in: {dict(mix.seen)}")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_random_moments(cluster: Cluster, places: Places, reference: Reference) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    killed: Counter[str] = Counter()
    with Mix(cluster, places) as mix, SteadyLoad(cluster, places, at_least=200) as load:
        for _ in range(60):
            load.check()
            killed[strike_at_random(cluster, dice, (*OURS, "nats", "postgres"))] += 1
            time.sleep(dice.uniform(0.2, 2.5))  # the moment is the fault, nothing waits for it

    check_all(cluster, load.submitted, reference)
    mix.verify()
    print(f"killed {dict(killed)}, accepted {len(load.submitted.runs)}, met {dict(load.submitted.answers)}")
    print(f"mixed in: {dict(mix.seen)}")
