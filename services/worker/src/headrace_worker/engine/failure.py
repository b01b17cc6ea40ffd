"""Why a task failed, in the words that are stored with the run."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headrace_connectors.api import ConnectorError

from headrace_worker.engine.redaction import Redactor

TRANSIENT = "TRANSIENT"
CONFIGURATION = "CONFIGURATION"
DATA = "DATA"
QUOTA = "QUOTA"
INTERNAL = "INTERNAL"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGEST_MESSAGE = 4000
_LONGEST_DETAIL = 2000


@dataclass(frozen=True)
class Failure:
    """A stable code, the class that decides about retries, and what went wrong, where, and what was
    expected.
    """

    code: str
    error_class: str
    message: str
    details: Mapping[str, str] = field(default_factory=dict)

    def redacted(self, redactor: Redactor) -> Failure:
        """The same without secrets, and of bounded size."""
        return replace(
            self,
            message=_bounded(redactor.text(self.message), _LONGEST_MESSAGE),
            details={k: _bounded(v, _LONGEST_DETAIL) for k, v in redactor.mapping(self.details).items()},
        )


class TaskFailed(Exception):  # noqa: N818 - what happened, and how it reads where it is caught
    """A task of the stage failed: `task` names it; empty where it was none in particular."""

    def __init__(self, task: str, failure: Failure) -> None:
        super().__init__(failure.message)
        self.task = task
        self.failure = failure


class LeaseLost(Exception):  # noqa: N818 - what happened, and how it reads where it is caught
    """The lease is not believed valid any more: nothing may be committed, and nobody waits for the result."""


def failure_of(error: BaseException) -> Failure:
    """What to store for an exception. The text of one that nobody expected stays inside: it goes to the
    log.
    """
    if isinstance(error, TaskFailed):
        return error.failure
    if isinstance(error, ConnectorError):
        return Failure(error.code, error.error_class.value, error.message, error.details)
    if isinstance(error, MemoryError):
        return Failure("MEMORY_LIMIT", QUOTA, "the stage needs more memory than the worker has for it")
    if isinstance(error, OSError) and error.errno in _FULL:
        return Failure("DISK_FULL", QUOTA, "the worker's disk, or its limit on the size of files, is full")
    return Failure(
        "INTERNAL_ERROR",
        INTERNAL,
        f"an unexpected {type(error).__name__} in the worker; its log has the particulars",
    )


def attempt_timeout(timeout_ms: int) -> Failure:
    """The attempt took longer than it may."""
    why = f"the attempt took longer than the {timeout_ms / 1000:g} s that it may"
    return Failure("ATTEMPT_TIMEOUT", TRANSIENT, why)


def worker_shutdown() -> Failure:
    """The worker could not wait for the stage."""
    return Failure("WORKER_SHUTDOWN", TRANSIENT, "the worker that ran the stage was shut down")


def stage_crashed(how: str) -> Failure:
    """The process of the stage died: `how` says of what."""
    return Failure("STAGE_CRASHED", TRANSIENT, f"the process that ran the stage died: {how}")


def _bounded(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
