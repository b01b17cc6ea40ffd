"""Rate limits under a clock of the test's own."""

import pytest
from headrace_chassis.errors import RateLimited
from headrace_gateway.http.ratelimit import RateLimiter
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_tokens_come_back_with_time() -> None:
    clock = Clock()
    limiter = RateLimiter(rate=2.0, burst=3, clock=clock)
    for _ in range(3):
        limiter.admit("ada")

    with pytest.raises(RateLimited) as refused:
        limiter.admit("ada")
    clock.now += 0.5
    headers = dict(limiter.admit("ada"))

    assert refused.value.retry_after == 0.5
    assert headers == {b"ratelimit-policy": b'"default";q=3;w=2', b"ratelimit": b'"default";r=0;t=2'}


def test_callers_do_not_share_tokens() -> None:
    limiter = RateLimiter(rate=1.0, burst=1, clock=Clock())

    limiter.admit("ada")

    assert limiter.admit("grace")


@given(st.lists(st.floats(0, 2), max_size=60))
def test_no_more_is_admitted_than_rate_and_burst_allow(waits: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(rate=3.0, burst=5, clock=clock)
    admitted = 0

    for wait in waits:
        clock.now += wait
        try:
            limiter.admit("ada")
        except RateLimited:
            continue
        admitted += 1

    assert admitted <= 5 + 3.0 * clock.now + 1e-6


def test_the_callers_that_are_kept_are_bounded() -> None:
    limiter = RateLimiter(rate=1.0, burst=1, clock=Clock())

    for caller in range(10_050):
        limiter.admit(caller)

    assert limiter.callers == 10_000
