"""Following runs: what watchers are told, by whom, and when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import grpc
import pytest
from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import HeadraceError, from_rpc_error
from headrace_chassis.ids import uuid7
from headrace_chassis.testing.broker import NatsServer
from headrace_chassis.testing.waiting import eventually
from headrace_execution.watching.interest import BELIEVED_SECONDS, Interest

from .support import LOADING, NOOP, TWO_STAGES, Cluster, Replica, state_of, task_states

NEVER = 3600.0
"""An agent that rests so long does nothing unless it is woken."""


class Watching:
    """A watch of a run, and what it has been told."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def next(self) -> runs_pb2.RunStatusResponse:
        async with asyncio.timeout(20):
            message = await self.call.read()
        assert message is not grpc.aio.EOF
        return message  # type: ignore[no-any-return]

    async def rest(self) -> list[runs_pb2.RunStatusResponse]:
        async with asyncio.timeout(20):
            found = []
            while (message := await self.call.read()) is not grpc.aio.EOF:
                found.append(message)
            return found

    async def error(self) -> HeadraceError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.rest()
        return from_rpc_error(caught.value)


@asynccontextmanager
async def watch(replica: Replica, run_id: str, token: str = "") -> AsyncIterator[Watching]:
    metadata = call_metadata(token or replica.authority.user("viewer"))
    call = replica.runs.WatchRun(runs_pb2.WatchRunRequest(run_id=run_id), metadata=metadata)
    try:
        yield Watching(call)
    finally:
        call.cancel()


class TestWatching:
    async def test_the_state_comes_first_and_then_each_change_to_the_end(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        replica.parts.watcher.interval_seconds = NEVER
        accepted = await replica.run(mesh.metadata.add(TWO_STAGES))
        async with watch(replica, accepted.run_id) as watching:
            seen = [await watching.next()]
            worker = await mesh.worker(replica)
            first = await worker.next_assignment()
            seen.append(await watching.next())
            key = seen[0].tasks[0].id
            reported = workers_pb2.TaskProgress(task=key, state=runs_pb2.TASK_STATE_RUNNING, rows_in=7)
            report = workers_pb2.AssignmentProgress(ref=first.ref, tasks=[reported])
            await worker.send(progress=workers_pb2.ProgressReport(assignments=[report]))
            seen.append(await watching.next())
            await worker.finish(first)
            second = await worker.next_assignment()
            await worker.finish(second)
            seen += await watching.rest()

        assert (state_of(seen[0]), state_of(seen[1]), state_of(seen[-1])) == (
            "PENDING",
            "RUNNING",
            "COMPLETED",
        )
        assert (task_states(seen[2])[key], seen[2].tasks[0].rows_in) == ("RUNNING", 7)
        revisions = [message.revision for message in seen]
        assert revisions == sorted(set(revisions))
        assert seen[-1] == replace_duration(await replica.status(accepted.run_id), seen[-1])

    async def test_a_run_that_has_ended_is_told_once(self, mesh: Cluster, replica: Replica) -> None:
        worker = await mesh.worker(replica)
        accepted = await replica.run(mesh.metadata.add(NOOP))
        await worker.finish(await worker.next_assignment())
        await replica.ended(accepted.run_id)

        async with watch(replica, accepted.run_id) as watching:
            messages = await watching.rest()

        assert [state_of(message) for message in messages] == ["COMPLETED"]

    async def test_a_change_of_another_replica_comes_by_the_bus(
        self, mesh: Cluster, nats_server: NatsServer
    ) -> None:
        one, two = [await mesh.replica(nats_url=nats_server.url) for _ in range(2)]
        for each in (one, two):
            each.parts.watcher.interval_seconds = NEVER
            assert await eventually(partial(connected, each))
        accepted = await one.run(mesh.metadata.add(LOADING))

        async with watch(two, accepted.run_id) as watching:
            first = await watching.next()
            worker = await mesh.worker(one)
            assignment = await worker.next_assignment()
            running = await watching.next()
            await worker.finish(assignment, "FAILED")
            last = (await watching.rest())[-1]

        assert [state_of(message) for message in (first, running, last)] == ["PENDING", "RUNNING", "FAILED"]

    async def test_without_a_bus_it_is_found_by_looking(self, mesh: Cluster) -> None:
        one, two = await mesh.replica(), await mesh.replica()
        accepted = await one.run(mesh.metadata.add(NOOP))

        async with watch(two, accepted.run_id) as watching:
            await watching.next()
            worker = await mesh.worker(one)
            await worker.finish(await worker.next_assignment())
            last = (await watching.rest())[-1]

        assert state_of(last) == "COMPLETED"

    async def test_watchers_of_one_run_share_the_reads(
        self, mesh: Cluster, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP))
        reads = 0
        get = replica.parts.store.get

        async def counted(tenant: UUID, run_id: UUID) -> Any:
            nonlocal reads
            reads += 1
            return await get(tenant, run_id)

        async with watch(replica, accepted.run_id) as first, watch(replica, accepted.run_id) as second:
            many = [first, second]
            for watching in many:
                await watching.next()
            monkeypatch.setattr(replica.parts.store, "get", counted)
            await replica.cancel(accepted.run_id)
            ends = [state_of((await watching.rest())[-1]) for watching in many]

        assert ends == ["CANCELLED", "CANCELLED"]
        assert reads <= 3  # two of the cancel itself

    async def test_nothing_is_kept_when_the_last_watcher_has_gone(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP))
        async with watch(replica, accepted.run_id) as watching:
            await watching.next()
            assert replica.parts.watcher.watched == 1

        async def empty() -> bool:
            return replica.parts.watcher.watched == 0

        assert await eventually(empty)


class TestRefusals:
    async def test_a_run_of_another_tenant_or_workspace_does_not_exist(
        self, mesh: Cluster, replica: Replica
    ) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP))
        tokens = [
            replica.authority.user("admin", tenant=uuid7()),
            replica.authority.user("viewer", workspaces=[uuid7()]),
        ]

        for token in tokens:
            async with watch(replica, accepted.run_id, token) as watching:
                assert (await watching.error()).code == "NOT_FOUND"
        async with watch(replica, str(uuid7())) as watching:
            assert (await watching.error()).code == "NOT_FOUND"

    async def test_it_ends_when_the_token_expires(self, mesh: Cluster, replica: Replica) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP))
        # Within the leeway for clocks, which is five seconds.
        token = replica.authority.user("viewer", lifetime=-3.0)

        async with watch(replica, accepted.run_id, token) as watching:
            await watching.next()
            error = await watching.error()

        assert (error.code, error.message) == ("UNAUTHENTICATED", "the token has expired")

    async def test_a_caller_watches_so_many_and_no_more(self, mesh: Cluster) -> None:
        replica = await mesh.replica(max_watches_per_caller=1)
        accepted = await replica.run(mesh.metadata.add(NOOP))
        other = replica.authority.user("viewer", subject="bob")

        async with watch(replica, accepted.run_id) as first:
            await first.next()
            async with watch(replica, accepted.run_id) as second:
                assert (await second.error()).code == "RATE_LIMITED"
            async with watch(replica, accepted.run_id, other) as third:
                assert state_of(await third.next()) == "PENDING"

    async def test_a_replica_that_goes_away_says_so(self, mesh: Cluster, replica: Replica) -> None:
        accepted = await replica.run(mesh.metadata.add(NOOP))
        async with watch(replica, accepted.run_id) as watching:
            await watching.next()
            await replica.parts.watcher.drain()
            assert (await watching.error()).code == "UNAVAILABLE"
        async with watch(replica, accepted.run_id) as watching:
            assert (await watching.error()).code == "UNAVAILABLE"


class TestInterest:
    def test_what_others_watch_is_known_until_they_say_it_no_more(self) -> None:
        now = 0.0
        mine, theirs = Interest(uuid7(), lambda: now), Interest(uuid7(), lambda: now)
        runs = [uuid7() for _ in range(2500)]
        words = list(theirs.watched_words(runs))

        begun = [run for word in words for run in mine.hear(word)[0]]
        again = [run for word in words for run in mine.hear(word)[0]]
        now = BELIEVED_SECONDS
        mine.forget_stale()

        assert (begun, again) == (runs, [])
        assert (len(words), mine.among(runs), bool(mine)) == (3, [], False)

    def test_changes_of_others_are_heard_and_my_own_words_are_not(self) -> None:
        mine, theirs = Interest(uuid7(), lambda: 0.0), Interest(uuid7(), lambda: 0.0)
        run = uuid7()

        assert mine.hear(next(theirs.changed_words([run]))) == ([], [run])
        assert mine.hear(next(mine.changed_words([run]))) == ([], [])
        assert mine.hear(next(mine.watched_words([run]))) == ([], [])

    @pytest.mark.parametrize(
        "word", [b"", b"ready", b"watched ", b"changed x y", b"watched \xff \xfe", b"changed"]
    )
    def test_what_it_does_not_understand_is_nothing(self, word: bytes) -> None:
        assert Interest(uuid7(), lambda: 0.0).hear(word) == ([], [])


async def connected(replica: Replica) -> bool:
    return replica.parts._base.bus.is_connected


def replace_duration(
    status: runs_pb2.RunStatusResponse, like: runs_pb2.RunStatusResponse
) -> runs_pb2.RunStatusResponse:
    status.metrics.duration_ms = like.metrics.duration_ms
    return status
