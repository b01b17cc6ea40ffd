"""The newest state of something that many follow."""

import asyncio

from headrace_chassis.errors import NotFound
from headrace_chassis.latest import Latest


async def test_who_is_slow_gets_the_newest_state_and_never_an_older_one() -> None:
    latest: Latest[str] = Latest()
    for order, state in ((2, "b"), (5, "e"), (3, "c"), (5, "other")):
        latest.show(order, state)

    assert await latest.after(-1) == (5, "e")
    waiting = asyncio.create_task(latest.after(5))
    await asyncio.sleep(0)
    latest.show(6, "f")
    assert await waiting == (6, "f")


async def test_the_last_state_comes_before_the_end() -> None:
    latest: Latest[str] = Latest()
    waiting = [asyncio.create_task(latest.after(1)) for _ in range(3)]
    await asyncio.sleep(0)
    latest.show(1, "a")
    latest.end(NotFound("run", 1))
    latest.end(ValueError("said too late"))

    assert await latest.after(0) == (1, "a")
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in told] == [NotFound] * 3
