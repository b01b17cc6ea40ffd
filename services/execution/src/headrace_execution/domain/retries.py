"""When a failed stage is tried again."""

from datetime import timedelta

from headrace_execution.domain.recipe import Policy
from headrace_execution.domain.run import ErrorClass, Failure

LONGEST_DELAY = timedelta(days=1)
JITTER = 0.25
"""At most this part of the delay is added, so that stages that failed together do not come back together."""


def is_retried(failure: Failure, failures: int, policy: Policy) -> bool:
    """Whether a stage with so many failed attempts before this one is tried again."""
    return failure.kind is ErrorClass.TRANSIENT and failures < policy.max_retries


def retry_delay(failures: int, policy: Policy, chance: float) -> timedelta:
    """The wait before the next attempt, when so many failed before this one: delay * 2**n plus jitter.

    Doubling ends at a day: with hundreds of retries the power would pass what a clock can hold.
    """
    try:
        delay: timedelta = min(policy.retry_delay * 2**failures, max(LONGEST_DELAY, policy.retry_delay))
    except OverflowError:
        delay = max(LONGEST_DELAY, policy.retry_delay)
    return delay + delay * (JITTER * chance)
