"""The outbox as a log: no reader ever passes an event over, whatever commits late and whoever dies."""

import asyncio
import random
import uuid
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from headrace.common.v1 import event_log_pb2
from headrace_chassis.bus import Bus
from headrace_chassis.database import Database, driver
from headrace_chassis.errors import Unavailable
from headrace_chassis.observability import tracing
from headrace_chassis.outbox import (
    EventLog,
    EventLogServicer,
    NewEvent,
    OutboxPruner,
    OutboxPublisher,
    OutboxSequencer,
    append,
)
from headrace_chassis.outbox.sequencer import LOCK
from headrace_chassis.testing.broker import NatsServer
from headrace_chassis.testing.waiting import eventually


def event(subject: str, kind: str = "io.headrace.thing.made.v1") -> NewEvent:
    return NewEvent(kind, uuid.UUID(int=1), subject, subject.encode())


def sequencer(db: Database, **options: Any) -> OutboxSequencer:
    return OutboxSequencer(db, assigned=lambda: None, **options)


async def write(db: Database, *subjects: str, kind: str = "io.headrace.thing.made.v1") -> None:
    async with db.transaction() as conn:
        await append(conn, [event(subject, kind) for subject in subjects])


async def listed(db: Database, after: int = 0, **request: Any) -> event_log_pb2.ListEventsResponse:
    return await EventLogServicer(EventLog(db)).ListEvents(
        event_log_pb2.ListEventsRequest(after=after, **request), None
    )


async def test_events_are_listed_in_order_with_all_they_were_given(db: Database) -> None:
    await write(db, "a", "b")
    await write(db, "c")
    await sequencer(db).run_once()
    answer = await listed(db)
    assert [(e.position, e.subject, e.data) for e in answer.events] == [
        (1, "a", b"a"),
        (2, "b", b"b"),
        (3, "c", b"c"),
    ]
    assert (answer.next_after, answer.oldest) == (3, 1)
    assert {e.tenant for e in answer.events} == {str(uuid.UUID(int=1))}


async def test_an_event_belongs_to_the_trace_of_its_call_unless_it_names_another(db: Database) -> None:
    here, there = tracing.new_traceparent(), tracing.new_traceparent()
    tracing.set_traceparent(here)
    given: list[str | None] = [None, there, ""]
    async with db.transaction() as conn:
        await append(conn, [replace(event("x"), traceparent=traceparent) for traceparent in given])
    await sequencer(db).run_once()
    assert [e.traceparent for e in (await listed(db)).events] == [here, there, ""]


async def test_an_event_exists_only_if_its_transaction_commits(db: Database) -> None:
    async def crashes() -> None:
        async with db.transaction() as conn:
            await append(conn, [event("lost")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await crashes()
    await write(db, "kept")
    await sequencer(db).run_once()
    assert [e.subject for e in (await listed(db)).events] == ["kept"]


async def test_what_commits_late_comes_later_and_is_not_passed_over(db: Database) -> None:
    async with db.transaction() as slow:
        await append(slow, [event("slow")])  # has the smaller id
        await write(db, "quick")
        await sequencer(db).run_once()
        seen = await listed(db)
        assert [e.subject for e in seen.events] == ["quick"]
    await sequencer(db).run_once()
    assert [e.subject for e in (await listed(db, after=seen.next_after)).events] == ["slow"]


async def test_a_reader_misses_nothing_of_many_writers_and_sequencers(db: Database) -> None:
    writers, each = 12, 10
    done = asyncio.Event()

    async def writer(number: int) -> None:
        for index in range(each):
            async with db.transaction() as conn:
                await append(conn, [event(f"{number}.{index}")])
                await driver(conn).execute("SELECT pg_sleep($1)", (number * index % 7) / 1000)

    async def sequence() -> None:
        agent = sequencer(db, batch=5)
        while not done.is_set():
            await agent.run_once()

    async def read() -> list[str]:
        after = 0
        seen: list[str] = []
        while len(seen) < writers * each:
            answer = await listed(db, after=after, limit=7)
            seen += [e.subject for e in answer.events]
            after = answer.next_after
        return seen

    sequencers = [asyncio.create_task(sequence()) for _ in range(3)]
    reader = asyncio.create_task(read())
    await asyncio.gather(*(writer(number) for number in range(writers)))
    seen = await asyncio.wait_for(reader, 60)
    done.set()
    await asyncio.gather(*sequencers)
    assert sorted(seen) == sorted(f"{n}.{i}" for n in range(writers) for i in range(each))
    async with db.read() as conn:
        gaps = await conn.scalar(sa.text("SELECT max(position) - count(*) FROM outbox_event"))
    assert gaps == 0


async def test_a_stopped_sequencer_holds_nobody_up_for_long(db: Database, database_url: str) -> None:
    await write(db, "a")
    stopped = Database(database_url, pool_size=1, idle_timeout=0.3)

    async def assigned() -> bool:
        await sequencer(db).run_once()
        return [e.subject for e in (await listed(db)).events] == ["a"]

    async def stops_in_its_turn() -> None:
        async with stopped.transaction() as conn:
            await driver(conn).fetchval("SELECT pg_advisory_xact_lock($1)", LOCK)
            await driver(conn).execute("UPDATE outbox_event SET position = 1")
            await eventually(assigned)
            await driver(conn).execute("SELECT 1")  # it goes on, and finds that it has lost its turn

    try:
        with pytest.raises(Unavailable):
            await stops_in_its_turn()
    finally:
        await stopped.close()


async def test_a_rare_type_moves_the_reader_on(db: Database) -> None:
    await write(db, "a", "b", kind="io.headrace.thing.made.v1")
    await sequencer(db).run_once()
    answer = await listed(db, types=["io.headrace.other.v1"])
    assert (list(answer.events), answer.next_after) == ([], 2)


async def test_old_events_are_pruned_and_the_reader_is_told(db: Database) -> None:
    await write(db, "old")
    await sequencer(db).run_once()
    async with db.transaction() as conn:
        await conn.execute(sa.text("UPDATE outbox_event SET created_at = now() - interval '8 days'"))
    await write(db, "new", "unsequenced")
    await sequencer(db).run_once()
    await OutboxPruner(db).run_once()
    answer = await listed(db)
    assert ([e.subject for e in answer.events], answer.oldest) == (["new", "unsequenced"], 2)


async def test_positions_go_on_when_all_events_are_gone(db: Database) -> None:
    await write(db, "a", "b")
    await sequencer(db).run_once()
    async with db.transaction() as conn:
        await conn.execute(sa.text("DELETE FROM outbox_event"))
    await write(db, "c")
    await sequencer(db).run_once()
    assert [e.position for e in (await listed(db, after=2)).events] == [3]


class TestPublishing:
    """What NATS gets, and what happens without it."""

    async def published(self, db: Database) -> int:
        async with db.read() as conn:
            return int(await conn.scalar(sa.text("SELECT published FROM outbox_head")) or 0)

    async def test_events_arrive_with_their_attributes(self, db: Database, nats_server: NatsServer) -> None:
        got: list[bytes] = []
        service = f"t{uuid.uuid4().hex[:8]}"
        bus = Bus(nats_server.url, "test")
        bus.subscribe(f"headrace.{service}.thing.>", got.append)
        await bus.start()
        try:
            await eventually(_true(lambda: bus.is_connected))
            await write(db, "a", "b")
            await sequencer(db).run_once()
            await OutboxPublisher(db, service, bus, EventLog(db)).run_once()
            await eventually(_true(lambda: [data for data in got if data] == [b"a", b"b"]))
            assert await self.published(db) == 2
        finally:
            await bus.close()

    async def test_without_nats_nothing_is_lost_or_delayed(self, db: Database) -> None:
        bus = Bus("nats://127.0.0.1:1", "test")
        await bus.start()
        try:
            await write(db, "a")
            await sequencer(db).run_once()
            assert await OutboxPublisher(db, "x", bus, EventLog(db)).run_once() is False
            assert [e.subject for e in (await listed(db)).events] == ["a"]
            assert await self.published(db) == 0
        finally:
            await bus.close()

    async def test_a_wiped_nats_gets_the_next_events(self, db: Database, tmp_path: Any) -> None:
        server = NatsServer(tmp_path / "nats")
        server.start()
        bus = Bus(server.url, "test")
        await bus.start()
        publisher = OutboxPublisher(db, "wiped", bus, EventLog(db))
        try:
            await eventually(_true(lambda: bus.is_connected))
            await write(db, "before")
            await sequencer(db).run_once()
            await publisher.run_once()
            server.kill()
            server.wipe()
            await eventually(_true(lambda: not bus.is_connected))
            await write(db, "during")
            await sequencer(db).run_once()
            await publisher.run_once()
            server.start()
            await eventually(_true(lambda: bus.is_connected))

            async def caught_up() -> bool:
                await publisher.run_once()
                return await self.published(db) == 2

            await eventually(caught_up)
        finally:
            await bus.close()
            server.kill()

    async def test_a_publisher_that_dies_repeats_under_the_same_identity(
        self, db: Database, nats_server: NatsServer
    ) -> None:
        got: list[bytes] = []
        service = f"t{uuid.uuid4().hex[:8]}"
        bus = Bus(nats_server.url, "test")
        bus.subscribe(f"headrace.{service}.>", got.append)
        await bus.start()
        try:
            await eventually(_true(lambda: bus.is_connected))
            await write(db, "a", "b")
            await sequencer(db).run_once()
            await OutboxPublisher(db, service, bus, EventLog(db)).run_once()
            async with db.transaction() as conn:  # as if it had died before it could remember
                await conn.execute(
                    sa.text("UPDATE outbox_head SET published = 0, publisher_until = now() - interval '1 s'")
                )
            await OutboxPublisher(db, service, bus, EventLog(db)).run_once()
            await eventually(_true(lambda: [data for data in got if data] == [b"a", b"b"] * 2))
            client = bus._client
            assert client is not None
            stream = await client.jetstream().stream_info(f"HEADRACE_{service.upper()}")
            assert stream.state.messages == 2  # the stream knows the identities
        finally:
            await bus.close()

    async def test_only_one_replica_publishes_at_a_time(self, db: Database, nats_server: NatsServer) -> None:
        bus = Bus(nats_server.url, "test")
        await bus.start()
        try:
            await eventually(_true(lambda: bus.is_connected))
            one, two = (OutboxPublisher(db, "lease", bus, EventLog(db)) for _ in range(2))
            await write(db, "a")
            await sequencer(db).run_once()
            await one.run_once()
            await write(db, "b")
            await sequencer(db).run_once()
            await two.run_once()  # the other one's lease has not run out
            assert await self.published(db) == 1
            async with db.transaction() as conn:
                await conn.execute(sa.text("UPDATE outbox_head SET publisher_until = now() - interval '1 s'"))
            await two.run_once()
            assert await self.published(db) == 2
        finally:
            await bus.close()


def _true(check: Any) -> Any:
    async def probe() -> bool:
        return bool(check())

    return probe


async def test_what_is_kept_of_a_log_answers_as_the_database_does(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_chassis.outbox.reading.DEFAULT_LIMIT", 4)
    chance = random.Random(5)
    log, kinds = EventLog(db, most_kept=6, most_bytes_kept=40), ("a", "b")
    head = 0
    for _ in range(60):
        for _ in range(chance.choice((0, 0, 1, 3, 9))):
            await write(db, "x" * chance.randint(1, 12), kind=chance.choice(kinds))
            head += 1
        await sequencer(db).run_once()
        after, limit = max(head - chance.randint(0, 14), 0), chance.randint(1, 7)
        types = chance.choice(((), ("a",), kinds))

        answers = await asyncio.gather(*(log.read(after, limit, types) for _ in range(2)))

        assert answers == [await EventLog(db).read(after, limit, types)] * 2


async def test_a_log_of_another_history_is_read_anew(db: Database) -> None:
    log = EventLog(db)
    await log.read(0)
    await write(db, "a", "b")
    await sequencer(db).run_once()
    assert [event.subject for event in (await log.read(0)).events] == ["a", "b"]

    async with db.transaction() as conn:  # a backup is restored, and other things happen
        await driver(conn).execute("DELETE FROM outbox_event")
        await driver(conn).execute("UPDATE outbox_head SET position = 0")
    await write(db, "c", "d", "e")
    await sequencer(db).run_once()

    assert [event.subject for event in (await log.read(0)).events] == ["c", "d", "e"]
