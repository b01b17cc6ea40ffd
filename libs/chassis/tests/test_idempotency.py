"""A write that is asked for twice with one key happens once."""

import asyncio
import contextvars
import hashlib
import uuid
from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa
from headrace.common.v1 import event_log_pb2
from headrace.metadata.v1 import connections_pb2
from headrace_chassis import idempotency
from headrace_chassis.database import Database
from headrace_chassis.errors import IdempotencyInFlight, IdempotencyKeyReused
from headrace_chassis.idempotency import IdempotencyKey, IdempotentWrites, RequestHasher, Standing
from sqlalchemy.ext.asyncio import AsyncConnection

Answer = event_log_pb2.Event


def key(text: str = "k", body: bytes = b"body") -> IdempotencyKey:
    return IdempotencyKey(uuid.UUID(int=1), "ada", "/x/Create", text, body)


def effect(name: str) -> Callable[[AsyncConnection], Awaitable[Answer]]:
    async def apply(conn: AsyncConnection) -> Answer:
        await conn.execute(sa.text("INSERT INTO effect (name) VALUES (:name)"), {"name": name})
        return Answer(id=name)

    return apply


async def with_key(key: IdempotencyKey | None, call: Callable[[], Awaitable[Answer]]) -> Answer:
    context = contextvars.copy_context()
    context.run(idempotency.set_current_key, key)
    return await asyncio.get_running_loop().create_task(call(), context=context)  # type: ignore[arg-type]


async def effects(db: Database) -> list[str]:
    async with db.read() as conn:
        return list((await conn.execute(sa.text("SELECT name FROM effect ORDER BY id"))).scalars())


async def test_the_same_request_is_answered_from_what_was_stored(db: Database) -> None:
    writes = IdempotentWrites(db)
    first = await with_key(key(), lambda: writes.run(Answer, effect("one")))
    second = await with_key(key(), lambda: writes.run(Answer, effect("two")))
    assert (first.id, second.id) == ("one", "one")
    assert await effects(db) == ["one"]


async def test_without_a_key_each_call_has_its_effect(db: Database) -> None:
    writes = IdempotentWrites(db)
    await with_key(None, lambda: writes.run(Answer, effect("one")))
    await with_key(None, lambda: writes.run(Answer, effect("one")))
    assert await effects(db) == ["one", "one"]


async def test_another_request_with_the_key_is_refused(db: Database) -> None:
    writes = IdempotentWrites(db)
    await with_key(key(), lambda: writes.run(Answer, effect("one")))
    with pytest.raises(IdempotencyKeyReused):
        await with_key(key(body=b"other"), lambda: writes.run(Answer, effect("two")))
    assert await effects(db) == ["one"]


async def test_of_many_at_once_one_has_the_effect(db: Database) -> None:
    writes = IdempotentWrites(db)
    calls = [with_key(key(), lambda: writes.run(Answer, effect("one"))) for _ in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(
        isinstance(a, IdempotencyInFlight) or (isinstance(a, Answer) and a.id == "one") for a in answers
    )
    assert any(isinstance(answer, Answer) for answer in answers)
    assert await effects(db) == ["one"]


async def test_while_one_is_handled_the_other_is_told_so(db: Database) -> None:
    writes = IdempotentWrites(db)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(conn: AsyncConnection) -> Answer:
        entered.set()
        await go_on.wait()
        return await effect("slow")(conn)

    first = asyncio.create_task(with_key(key(), lambda: writes.run(Answer, slow)))
    await entered.wait()
    with pytest.raises(IdempotencyInFlight) as refused:
        await with_key(key(), lambda: writes.run(Answer, effect("other")))
    go_on.set()
    assert (await first).id == "slow"
    assert refused.value.retry_after is not None


async def test_a_crash_before_commit_leaves_neither_effect_nor_answer(db: Database) -> None:
    writes = IdempotentWrites(db)

    async def crashes(conn: AsyncConnection) -> Answer:
        await effect("lost")(conn)
        raise KeyboardInterrupt("the process dies here")

    with pytest.raises(KeyboardInterrupt):
        await _interrupted(writes, crashes)
    again = await with_key(key(), lambda: writes.run(Answer, effect("landed")))
    assert again.id == "landed"
    assert await effects(db) == ["landed"]


async def _interrupted(
    writes: IdempotentWrites, apply: Callable[[AsyncConnection], Awaitable[Answer]]
) -> None:
    # Not in a task of its own: a KeyboardInterrupt there would end the loop.
    idempotency.set_current_key(key())
    try:
        await writes.run(Answer, apply)
    finally:
        idempotency.set_current_key(None)


async def test_a_secret_that_is_shown_once_is_not_stored(db: Database) -> None:
    writes = IdempotentWrites(db)

    def masked(answer: Answer) -> Answer:
        return Answer(id=answer.id)

    async def apply(_: AsyncConnection) -> Answer:
        return Answer(id="x", subject="hr_secret")

    first = await with_key(key(), lambda: writes.run(Answer, apply, stored=masked))
    second = await with_key(key(), lambda: writes.run(Answer, apply, stored=masked))
    assert (first.subject, second.subject) == ("hr_secret", "")


def test_a_stored_hash_says_nothing_without_the_key() -> None:
    request = connections_pb2.CreateConnectionRequest(name="warehouse", secret="hunter2")
    with_a, again, with_b = (RequestHasher(key * 32).digest(request) for key in (b"a", b"a", b"b"))
    assert with_a == again  # two replicas
    assert with_a != with_b
    assert with_a != hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    request.secret = "hunter3"
    assert RequestHasher(b"a" * 32).digest(request) != with_a


async def test_in_a_batch_only_the_first_of_equal_keys_is_new(db: Database) -> None:
    async with db.transaction() as conn:
        await idempotency.store_many(conn, [(key("old"), b"answer")])
    async with db.transaction() as conn:
        found = await idempotency.lookup_many(conn, [key("a"), key("a"), key("old"), key("old", b"other")])
    assert [lookup.standing for lookup in found] == [
        Standing.NEW,
        Standing.IN_FLIGHT,
        Standing.STORED,
        Standing.REUSED,
    ]
    assert found[2].answer == b"answer"


async def test_old_keys_are_pruned(db: Database) -> None:
    async with db.transaction() as conn:
        await idempotency.store_many(conn, [(key("old"), b""), (key("new"), b"")])
        await conn.execute(
            sa.text("UPDATE idempotency SET created_at = now() - interval '25 hours' WHERE key = 'old'")
        )
    assert await idempotency.prune(db) == 1
    assert await idempotency.prune(db) == 0
