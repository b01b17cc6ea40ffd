"""Forwarders: each event reaches the receiver at least once, in order, whatever becomes of either side."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from headrace.common.v1 import event_log_pb2
from headrace_chassis.database import Database
from headrace_chassis.errors import Unavailable
from headrace_chassis.event_sources import OwnEvents
from headrace_chassis.forwarder import DEFECT_PATIENCE, EventForwarder, EventRefused, Receiver, ReceiverAway
from headrace_chassis.outbox import EventLog, NewEvent, OutboxSequencer, append
from headrace_chassis.testing.waiting import eventually

TYPE = "io.headrace.x.v1"


class Scripted(Receiver):
    """Keeps what it is sent; `answer` may raise for a message, `trouble` for an event."""

    types = (TYPE,)

    def __init__(self) -> None:
        self.got: list[str] = []
        self.answer: Callable[[str], object] = lambda message: None
        self.trouble: Callable[[str], object] = lambda subject: None

    async def prepare(self, events: Sequence[event_log_pb2.Event]) -> list[list[bytes]]:
        for event in events:
            self.trouble(event.subject)
        return [[event.subject.encode()] for event in events]

    async def send(self, message: bytes) -> None:
        self.answer(message.decode())
        self.got.append(message.decode())


async def publish(db: Database, *subjects: str, kind: str = TYPE) -> None:
    async with db.transaction() as conn:
        await append(conn, [NewEvent(kind, uuid.UUID(int=1), name, b"") for name in subjects])
    await OutboxSequencer(db, assigned=lambda: None).run_once()


def forwarder(db: Database, receiver: Receiver, **options: Any) -> EventForwarder:
    options.setdefault("first_wait", 0.0)
    return EventForwarder(db, "outside", OwnEvents("sample", EventLog(db)), receiver, uuid.uuid4(), **options)


async def rounds(agent: EventForwarder, count: int = 20) -> None:
    """So many rounds, as far as there is something to do; what fails is tried again."""
    for _ in range(count):
        await agent.run_once()


async def one(db: Database, query: str) -> Any:
    async with db.read() as conn:
        return (await conn.execute(sa.text(query))).one()


async def change(db: Database, statement: str) -> None:
    async with db.transaction() as conn:
        await conn.execute(sa.text(statement))


def raising(when: str, error: Exception) -> Callable[[str], object]:
    """Raises the error for one message."""

    def answer(message: str) -> None:
        if message == when:
            raise error

    return answer


async def test_events_are_handed_over_in_order_and_others_are_passed_over(db: Database) -> None:
    receiver = Scripted()
    await publish(db, "a", "b")
    await publish(db, "another", kind="io.headrace.other.v1")
    await publish(db, "c")

    await rounds(forwarder(db, receiver, batch=2))
    await rounds(forwarder(db, receiver), 1)  # another replica: there is nothing left

    assert receiver.got == ["a", "b", "c"]


async def test_while_the_receiver_is_away_events_wait_in_their_order(db: Database) -> None:
    receiver = Scripted()
    receiver.answer = raising("b", ReceiverAway("nothing answers"))
    agent = forwarder(db, receiver)
    await publish(db, *"abc")

    await rounds(agent, 30)
    assert receiver.got == ["a"]
    state = await one(db, "SELECT position, failures, problem FROM forwarder")
    assert tuple(state) == (1, 30, "nothing answers")

    receiver.answer = lambda message: None
    await rounds(agent, 2)
    assert receiver.got == ["a", "b", "c"]
    assert (await one(db, "SELECT count(*) FROM parked_event"))[0] == 0


async def test_it_is_left_alone_for_as_long_as_it_asks_for_also_by_other_replicas(db: Database) -> None:
    receiver = Scripted()
    receiver.answer = raising("a", ReceiverAway("too many requests", retry_after=30.0))
    await publish(db, "a")

    await rounds(forwarder(db, receiver, longest_wait=60.0), 3)
    await rounds(forwarder(db, receiver), 3)

    state = await one(db, "SELECT failures, retry_at - clock_timestamp() > interval '20 s' FROM forwarder")
    assert tuple(state) == (1, True)


async def test_an_event_that_is_refused_again_and_again_is_parked_with_the_reason(db: Database) -> None:
    receiver = Scripted()
    receiver.answer = raising("b", EventRefused("it answered 422", patience=3))
    agent = forwarder(db, receiver)
    await publish(db, *"abc")

    await rounds(agent)

    assert receiver.got == ["a", "c"]
    assert tuple(await one(db, "SELECT consumer, error FROM parked_event")) == ("outside", "it answered 422")
    assert tuple(await one(db, "SELECT position, refusals FROM forwarder")) == (3, 0)


async def test_an_event_that_cannot_be_told_does_not_hold_up_the_others(db: Database) -> None:
    receiver = Scripted()
    receiver.trouble = raising("b", KeyError("no such plan"))
    agent = forwarder(db, receiver)
    await publish(db, *"abc")

    with pytest.raises(KeyError):
        await agent.run_once()
    await rounds(agent, DEFECT_PATIENCE + 3)

    assert receiver.got == ["a", "c"]
    assert "no such plan" in (await one(db, "SELECT error FROM parked_event"))[0]


async def test_what_is_away_of_ours_parks_nothing(db: Database) -> None:
    receiver = Scripted()
    receiver.trouble = raising("a", Unavailable("metadata"))
    agent = forwarder(db, receiver)
    await publish(db, "a")

    for _ in range(2 * DEFECT_PATIENCE):
        with pytest.raises(Unavailable):
            await agent.run_once()
    receiver.trouble = lambda subject: None
    await rounds(agent, 1)

    assert receiver.got == ["a"]


async def test_events_of_a_subject_go_in_order_and_do_not_hold_up_those_of_others(db: Database) -> None:
    receiver, go_on = Scripted(), asyncio.Event()
    handed = receiver.send

    async def slow_at_first(message: bytes) -> None:
        if message == b"slow" and not receiver.got.count("slow"):
            await go_on.wait()
        await handed(message)

    receiver.send = slow_at_first  # type: ignore[method-assign]
    await publish(db, "slow", "fast", "slow", "fast")
    agent = forwarder(db, receiver)
    working = asyncio.create_task(agent.run_once())

    await eventually(lambda: _is(receiver.got, ["fast", "fast"]))
    assert tuple(await one(db, "SELECT position FROM forwarder")) == (0,)
    go_on.set()
    await working

    assert receiver.got == ["fast", "fast", "slow", "slow"]
    assert tuple(await one(db, "SELECT position FROM forwarder")) == (4,)


async def _is(got: list[str], expected: list[str]) -> bool:
    return got == expected


async def test_one_replica_sends_and_another_takes_over_when_it_dies(db: Database) -> None:
    first, second = Scripted(), Scripted()
    handed = first.send

    async def for_ever(message: bytes) -> None:
        await handed(message)
        if message == b"c":
            await asyncio.Event().wait()

    first.send = for_ever  # type: ignore[method-assign]
    await publish(db, *"abcd")

    dying = asyncio.create_task(forwarder(db, first).run_once())
    await eventually(lambda: _is(first.got, list("abcd")))
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await rounds(forwarder(db, second), 3)
    assert second.got == []  # the lease of the other one stands

    await change(db, "UPDATE forwarder SET held_until = clock_timestamp()")
    await rounds(forwarder(db, second), 3)
    assert second.got == list("abcd")  # the first one had noted nothing yet


async def test_a_replica_that_slept_through_its_lease_moves_nothing(db: Database) -> None:
    sleeper, other = Scripted(), Scripted()
    agent = forwarder(db, sleeper, batch=1)
    await publish(db, *"ab")
    handed = sleeper.send

    async def slow(message: bytes) -> None:
        await change(db, "UPDATE forwarder SET held_until = clock_timestamp()")
        await forwarder(db, other, batch=1).run_once()
        await handed(message)

    sleeper.send = slow  # type: ignore[method-assign]
    assert await agent.run_once() is False

    assert tuple(await one(db, "SELECT position FROM forwarder")) == (1,)
    assert (sleeper.got, other.got) == (["a"], ["a"])
