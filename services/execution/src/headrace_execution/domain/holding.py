"""Limits on concurrent runs. How many are live is counted when it is asked, never kept."""

from headrace_execution.domain.recipe import Policy


class ConcurrencyLimit(Exception):  # noqa: N818 - it names a fact
    """As many runs of the pipeline are live as it allows, and it does not queue."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"it is at its limit of {limit} live run{'s' if limit != 1 else ''}, and it does not queue"
        )
        self.limit = limit


def must_wait(policy: Policy, live: int) -> bool:
    """Whether a run is held while so many others of its pipeline are live.

    Raises:
        ConcurrencyLimit: when it would be, and the pipeline refuses instead.
    """
    limit = policy.max_concurrent_runs
    if limit is None or live < limit:
        return False
    if not policy.queue_when_full:
        raise ConcurrencyLimit(limit)
    return True


def may_go(policy: Policy, live: int) -> bool:
    """Whether a held run may start while so many others of its pipeline are live."""
    return policy.max_concurrent_runs is None or live < policy.max_concurrent_runs
