"""What waits to be sent: its order, and which messages are joined."""

import asyncio

from headrace.execution.v1 import workers_pb2
from headrace_worker.outgoing import LARGEST_BATCH, Outgoing

HEARTBEAT = workers_pb2.ConnectRequest(heartbeat=workers_pb2.Heartbeat(free_slots=1))


def result(name: str) -> workers_pb2.ConnectRequest:
    ref = workers_pb2.AssignmentRef(assignment_id=name, fence=1)
    return workers_pb2.ConnectRequest(result=workers_pb2.AssignmentResult(ref=ref))


async def taken(outgoing: Outgoing) -> list[str]:
    """All that waits, message by message: the names in results, and the kinds of others."""
    told = []
    while outgoing.waiting:
        message = await asyncio.wait_for(outgoing.take(), 30)
        outgoing.sent()
        body = message.WhichOneof("body")
        results = [message.result] if body == "result" else message.results.results
        told.append("".join(each.ref.assignment_id for each in results) or str(body))
    return told


async def test_results_that_follow_each_other_go_together_and_nothing_changes_places() -> None:
    outgoing = Outgoing(joins_results=True)
    for message in (result("a"), HEARTBEAT, result("b"), result("c"), HEARTBEAT, result("d")):
        outgoing.put(message)

    assert await taken(outgoing) == ["a", "heartbeat", "bc", "heartbeat", "d"]


async def test_a_server_that_takes_no_batches_gets_none() -> None:
    outgoing = Outgoing(joins_results=False)
    outgoing.put(result("a"))
    outgoing.put(result("b"))

    assert await taken(outgoing) == ["a", "b"]


async def test_a_batch_is_bounded() -> None:
    outgoing = Outgoing(joins_results=True)
    for _ in range(LARGEST_BATCH + 1):
        outgoing.put(result("x"))

    assert await taken(outgoing) == ["x" * LARGEST_BATCH, "x"]


async def test_it_is_flushed_when_what_was_taken_is_sent() -> None:
    outgoing = Outgoing(joins_results=True)
    outgoing.put(HEARTBEAT)
    flushed = asyncio.ensure_future(outgoing.flushed())
    await outgoing.take()
    await asyncio.sleep(0)
    assert not flushed.done()

    outgoing.sent()

    await asyncio.wait_for(flushed, 30)
