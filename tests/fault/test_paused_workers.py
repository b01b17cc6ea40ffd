"""A worker that stands still for longer than its lease, and goes on when others have its work."""

import httpx
import pytest

from .checking import Reference, await_end, check_all, digest
from .cluster import Cluster, until
from .striking import await_fired
from .submitting import Submitted, submit
from .workload import KINDS, SIGNALS, Pipeline, Places, create, posting

LANDING = [kind for kind in KINDS if kind != "noop" and kind not in SIGNALS]


def fences(cluster: Cluster, submitted: Submitted) -> list[tuple[int, int]]:
    """The newest fence of each load and that under which it landed."""
    return [
        (int(newest), int(landed))
        for newest, landed in cluster.sql(
            "warehouse",
            "SELECT fence, committed_fence FROM headrace._headrace_loads WHERE root_run_id = ANY($1)",
            list(submitted.runs),
        )
    ]


def start(cluster: Cluster, admin: httpx.Client, places: Places, kind: str) -> tuple[Submitted, Pipeline]:
    """One run of a new pipeline."""
    pipeline = create(posting(admin), places, kind)
    return submit(cluster, [pipeline], each=1), pipeline


def paused_at_commit(cluster: Cluster) -> tuple[int, list[int]]:
    """Waits until a stage stands still right before its commit, and stops the whole worker with it."""
    stage = await_fired(cluster, "worker.commit.before")
    worker = cluster.worker_of(stage)
    assert worker is not None
    frozen = [*cluster.freeze(worker), stage]
    cluster.disarm()
    return stage, frozen


@pytest.mark.parametrize("kind", ["values_append"])
def test_its_commit_finds_the_load_landed(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, kind: str
) -> None:
    its_commit_finds_the_load_landed(cluster, admin, places, reference, kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in LANDING if kind != "values_append"])
def test_its_commit_finds_the_load_landed_in_all_modes(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, kind: str
) -> None:
    its_commit_finds_the_load_landed(cluster, admin, places, reference, kind)


def its_commit_finds_the_load_landed(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, kind: str
) -> None:
    """Stopped before its commit; another worker finishes the run; it goes on with its commit."""
    cluster.arm("worker.commit.before", "stop")
    submitted, pipeline = start(cluster, admin, places, kind)
    stage, frozen = paused_at_commit(cluster)

    states = await_end(cluster, submitted)
    before = [digest(cluster, table) for table in pipeline.tables]
    cluster.thaw(frozen)
    until(lambda: cluster.worker_of(stage) is None, "the stage that came late has ended")

    assert states == {"COMPLETED": 1}
    assert [digest(cluster, table) for table in pipeline.tables] == before
    check_all(cluster, submitted, reference)


@pytest.mark.long
@pytest.mark.parametrize("kind", LANDING)
def test_its_commit_is_refused_by_the_fence_of_a_newer_attempt(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, kind: str
) -> None:
    """Stopped before its commit; the next attempt has claimed the load and not landed it; it goes on."""
    cluster.arm("worker.commit.before", "stop")
    submitted, pipeline = start(cluster, admin, places, kind)
    first, frozen = paused_at_commit(cluster)
    cluster.arm("worker.commit.before", "stop")
    second = await_fired(cluster, "worker.commit.before")

    cluster.thaw(frozen)
    until(lambda: cluster.worker_of(first) is None, "the stage that came late has ended")
    ((landed,),) = cluster.sql(
        "warehouse",
        "SELECT count(*) FROM headrace._headrace_loads WHERE root_run_id = ANY($1) "
        "AND committed_at IS NOT NULL",
        list(submitted.runs),
    )
    cluster.thaw([second])

    assert landed == 0, "what came late has landed"
    check_all(cluster, submitted, reference)
    assert all(newest == committed for newest, committed in fences(cluster, submitted)), pipeline
