"""Runs from acceptance to their end, over gRPC, with a scripted worker."""

from .support import NOOP, Cluster, Replica, state_of, task_states


async def test_a_run_starts_at_once_where_a_slot_is_free_and_ends_with_its_result(
    mesh: Cluster, replica: Replica
) -> None:
    pipeline = mesh.metadata.add(NOOP)
    worker = await mesh.worker(replica)

    accepted = await replica.run(pipeline)
    assignment = await worker.next_assignment()
    await worker.finish(assignment)
    status = await replica.ended(accepted.run_id)

    assert (state_of(accepted), accepted.task_count, accepted.pipeline_version) == ("RUNNING", 1, 1)
    assert (state_of(status), task_states(status)) == ("COMPLETED", {"noop": "COMPLETED"})
    assert (await worker.next_ack()) == assignment.ref
