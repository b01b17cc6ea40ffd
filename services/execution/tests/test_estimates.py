"""How long a run will probably take, as the answer to its acceptance tells it."""

from uuid import UUID

from headrace_execution.domain.usual import Sample, Usual
from headrace_execution.store.port import Tx

from .support import NOOP, Cluster, Replica, failure
from .test_retries import retry
from .test_store import ask


async def _remember(replica: Replica, pipeline: str, *durations: int) -> None:
    usual = Usual(tuple(Sample(duration, 1) for duration in durations))

    async def write(tx: Tx) -> None:
        await tx.alerts.remember({UUID(pipeline): usual})

    await ask(replica.parts.store, write)


async def test_it_is_the_median_of_the_latest_runs(mesh: Cluster, replica: Replica) -> None:
    pipeline = mesh.metadata.add(NOOP)
    await _remember(replica, pipeline, 900, 1000, 60_000)

    accepted = await replica.run(pipeline)

    assert accepted.estimated_duration_ms == 1000
    assert not (await replica.run(mesh.metadata.add(NOOP))).HasField("estimated_duration_ms")


async def test_what_cannot_be_compared_has_none(mesh: Cluster, replica: Replica) -> None:
    pipeline = mesh.metadata.add(NOOP)
    await _remember(replica, pipeline, 1000)
    worker = await mesh.worker(replica)

    refreshed = await replica.run(pipeline, full_refresh=True)
    await worker.finish(await worker.next_assignment(), "FAILED", error=failure("BAD", "DATA"))
    await replica.ended(refreshed.run_id)
    retried = await retry(replica, refreshed.run_id)

    assert not refreshed.HasField("estimated_duration_ms")
    assert not retried.HasField("estimated_duration_ms")


async def test_it_is_asked_for_once_in_a_while(mesh: Cluster, replica: Replica) -> None:
    pipeline = mesh.metadata.add(NOOP)
    await _remember(replica, pipeline, 1000)
    first = await replica.run(pipeline)
    await _remember(replica, pipeline, 5000)

    assert (await replica.run(pipeline)).estimated_duration_ms == first.estimated_duration_ms
    replica.travel(60)
    assert (await replica.run(pipeline)).estimated_duration_ms == 5000
