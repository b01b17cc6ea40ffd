"""Consumers: each event has its effect once."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from headrace.common.v1 import event_log_pb2, event_log_pb2_grpc
from headrace_chassis import consumer as consumers
from headrace_chassis.agents import AgentRunner
from headrace_chassis.bus import Bus
from headrace_chassis.channels import call_metadata
from headrace_chassis.consumer import EventConsumer
from headrace_chassis.database import Database
from headrace_chassis.errors import Unavailable
from headrace_chassis.event_sources import OwnEvents, ServiceEvents
from headrace_chassis.outbox import EventLog, NewEvent, OutboxPublisher, OutboxSequencer, append, event_log
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.broker import NatsServer
from headrace_chassis.testing.serving import serve
from headrace_chassis.testing.waiting import eventually
from sqlalchemy.ext.asyncio import AsyncConnection

Effect = Callable[[AsyncConnection, Sequence[event_log_pb2.Event]], Awaitable[None]]


async def note(conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
    for event in events:
        await conn.execute(sa.text("INSERT INTO effect (name) VALUES (:name)"), {"name": event.subject})


async def effects(db: Database) -> list[str]:
    async with db.read() as conn:
        return list((await conn.execute(sa.text("SELECT name FROM effect ORDER BY id"))).scalars())


async def publish(db: Database, *subjects: str) -> None:
    async with db.transaction() as conn:
        await append(conn, [NewEvent("io.headrace.x.v1", uuid.UUID(int=1), name, b"") for name in subjects])
    await OutboxSequencer(db, assigned=lambda: None).run_once()


class Log:
    """The log of a service, read through a real server; a test may tamper with the answers."""

    def __init__(self, stub: Any, tamper: Callable[[Any], Any] = lambda answer: answer) -> None:
        self._stub = stub
        self.tamper = tamper

    async def ListEvents(self, request: Any, metadata: Any) -> Any:
        return self.tamper(await self._stub.ListEvents(request, metadata=metadata))


def follower(
    db: Database, log: Any, authority: Authority, handle: Effect = note, **options: Any
) -> EventConsumer:
    source = ServiceEvents("source", log, lambda: call_metadata(authority.service("metadata")))
    return EventConsumer(db, "follower", source, handle, **options)


async def drain(consumer: EventConsumer) -> None:
    while await consumer.run_once():
        pass


async def test_each_event_has_its_effect_once_and_in_order(db: Database, authority: Authority) -> None:
    async with serve(authority, [event_log(EventLog(db))]) as served:
        stub = event_log_pb2_grpc.EventLogServiceStub(served.channel)
        consumer = follower(db, stub, authority, batch=2)
        await publish(db, "a", "b", "c")
        await drain(consumer)
        await publish(db, "d")
        await drain(consumer)
        await drain(follower(db, stub, authority))  # a restart
    assert await effects(db) == ["a", "b", "c", "d"]


async def test_repeated_events_have_no_second_effect(db: Database, authority: Authority) -> None:
    async with serve(authority, [event_log(EventLog(db))]) as served:
        stub = event_log_pb2_grpc.EventLogServiceStub(served.channel)
        await publish(db, "a", "b")
        await drain(follower(db, stub, authority))
        async with db.transaction() as conn:  # the position is set back, as by a restored backup
            await conn.execute(sa.text("UPDATE consumer_position SET position = 0"))
        await publish(db, "c")
        await drain(follower(db, stub, authority))
    assert await effects(db) == ["a", "b", "c"]


async def test_tripled_and_reordered_answers_have_each_effect_once_and_in_order(
    db: Database, authority: Authority
) -> None:
    def tamper(answer: event_log_pb2.ListEventsResponse) -> event_log_pb2.ListEventsResponse:
        events = list(answer.events) * 3
        random.Random(7).shuffle(events)
        return event_log_pb2.ListEventsResponse(
            events=events, next_after=answer.next_after, oldest=answer.oldest
        )

    async with serve(authority, [event_log(EventLog(db))]) as served:
        log = Log(event_log_pb2_grpc.EventLogServiceStub(served.channel), tamper)
        await publish(db, *"abcdefgh")
        await drain(follower(db, log, authority, batch=3))
    assert await effects(db) == list("abcdefgh")


async def test_an_answer_from_the_past_moves_nothing_back(db: Database, authority: Authority) -> None:
    async with serve(authority, [event_log(EventLog(db))]) as served:
        log = Log(event_log_pb2_grpc.EventLogServiceStub(served.channel))
        consumer = follower(db, log, authority)
        await publish(db, "a", "b")
        await drain(consumer)
        old = event_log_pb2.ListEventsResponse(next_after=1, oldest=1)
        log.tamper = lambda _: old
        await drain(consumer)
        log.tamper = lambda answer: answer
        await publish(db, "c")
        await drain(consumer)
    assert await effects(db) == ["a", "b", "c"]


async def test_with_nats_wiped_the_log_heals(db: Database, authority: Authority, tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    bus = Bus(server.url, "test")
    async with serve(authority, [event_log(EventLog(db))]) as served:
        stub = event_log_pb2_grpc.EventLogServiceStub(served.channel)
        consumer = follower(db, stub, authority, bus=bus)
        consumer.interval_seconds = 0.1
        runner = AgentRunner([consumer])
        await bus.start()
        await runner.start()
        try:
            await publish(db, "before")
            await eventually(lambda: _is(db, ["before"]))
            server.kill()
            server.wipe()
            await publish(db, "during")
            await eventually(lambda: _is(db, ["before", "during"]))
            server.start()
            await publish(db, "after")
            await eventually(lambda: _is(db, ["before", "during", "after"]))
        finally:
            await runner.stop()
            await bus.close()
            server.kill()


async def test_a_message_on_nats_wakes_the_consumer(
    db: Database, authority: Authority, nats_server: NatsServer
) -> None:
    bus = Bus(nats_server.url, "test")
    async with serve(authority, [event_log(EventLog(db))]) as served:
        stub = event_log_pb2_grpc.EventLogServiceStub(served.channel)
        consumer = follower(db, stub, authority, bus=bus)
        consumer.interval_seconds = 3600.0
        runner = AgentRunner([consumer])
        await bus.start()
        await runner.start()
        try:
            await eventually(lambda: _connected(bus))
            await publish(db, "a")
            await OutboxPublisher(db, "source", bus, EventLog(db)).run_once()
            await eventually(lambda: _is(db, ["a"]))
        finally:
            await runner.stop()
            await bus.close()


async def _is(db: Database, expected: list[str]) -> bool:
    return await effects(db) == expected


async def _connected(bus: Bus) -> bool:
    return bus.is_connected


async def test_several_replicas_share_the_work(db: Database, authority: Authority) -> None:
    async with serve(authority, [event_log(EventLog(db))]) as served:
        stub = event_log_pb2_grpc.EventLogServiceStub(served.channel)
        names = [f"e{number:03}" for number in range(60)]
        await publish(db, *names)
        await asyncio.gather(*(drain(follower(db, stub, authority, batch=7)) for _ in range(3)))
        await drain(follower(db, stub, authority))
    assert await effects(db) == names


async def test_a_failure_leaves_position_and_effects_as_they_were(db: Database, authority: Authority) -> None:
    failing = True

    async def handle(conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        await note(conn, events)
        if failing:
            raise Unavailable("something else")

    async with serve(authority, [event_log(EventLog(db))]) as served:
        consumer = follower(db, event_log_pb2_grpc.EventLogServiceStub(served.channel), authority, handle)
        await publish(db, "a")
        with pytest.raises(Unavailable):
            await consumer.run_once()
        assert await effects(db) == []
        failing = False
        await drain(consumer)
    assert await effects(db) == ["a"]


async def test_a_poisonous_event_is_parked_and_the_others_go_on(db: Database, authority: Authority) -> None:
    async def handle(conn: AsyncConnection, events: Sequence[event_log_pb2.Event]) -> None:
        if any(event.subject == "poison" for event in events):
            raise ZeroDivisionError("cannot be handled")
        await note(conn, events)

    async with serve(authority, [event_log(EventLog(db))]) as served:
        consumer = follower(db, event_log_pb2_grpc.EventLogServiceStub(served.channel), authority, handle)
        await publish(db, "a", "poison", "b")
        failures = 0
        more = True
        while more and failures < 20:
            try:
                more = await consumer.run_once()
            except ZeroDivisionError:
                failures += 1
    assert await effects(db) == ["a", "b"]
    assert failures == consumers.PARK_AFTER  # once in the batch, the rest alone, and then it was parked
    async with db.read() as conn:
        row = (await conn.execute(sa.text("SELECT error, event FROM parked_event"))).one()
    assert row.error == "ZeroDivisionError: cannot be handled"
    assert event_log_pb2.Event.FromString(row.event).subject == "poison"


async def test_a_service_follows_its_own_log_by_the_position_alone(db: Database) -> None:
    def consumer() -> EventConsumer:
        return EventConsumer(db, "follower", OwnEvents("source", EventLog(db)), note, batch=2)

    await publish(db, "a", "b", "c")
    await asyncio.gather(*(drain(consumer()) for _ in range(3)))  # replicas
    await publish(db, "d")
    await drain(consumer())
    assert await effects(db) == ["a", "b", "c", "d"]
    async with db.read() as conn:
        assert (await conn.execute(sa.text("SELECT count(*) FROM inbox"))).scalar_one() == 0


async def test_a_user_may_not_read_the_log(db: Database, authority: Authority) -> None:
    async with serve(authority, [event_log(EventLog(db))]) as served:
        stub = event_log_pb2_grpc.EventLogServiceStub(served.channel)
        with pytest.raises(Exception, match="needs the role service"):
            await stub.ListEvents(event_log_pb2.ListEventsRequest(), metadata=served.as_user("admin"))
