"""What every error of ours is, whatever its class: a reason, a message, and problems with their places."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.common.v1 import reasons_pb2

from headrace_chassis.catalogue import CATALOGUE, Entry

REASON_PREFIX = "REASON_"
"""How the names of reasons begin in the contract, and nowhere else."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem at one place of a request or definition.

    `code` is a stable word in UPPER_SNAKE, `path` a path of JSON names ("sinks[0].mode"); `line` and `column`
    count from 1 and are there only for a definition's text; `suggestion` is the nearest valid word.
    """

    code: str
    path: str
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None

    def to_proto(self) -> reasons_pb2.Problem:
        """Returns the form that travels in status details."""
        return reasons_pb2.Problem(
            code=self.code,
            path=self.path,
            message=self.message,
            line=self.line,
            column=self.column,
            suggestion=self.suggestion,
        )

    @staticmethod
    def from_proto(problem: reasons_pb2.Problem) -> "Problem":
        """Returns the problem that travelled in status details."""
        return Problem(
            code=problem.code,
            path=problem.path,
            message=problem.message,
            line=problem.line if problem.HasField("line") else None,
            column=problem.column if problem.HasField("column") else None,
            suggestion=problem.suggestion if problem.HasField("suggestion") else None,
        )


class HeadraceError(Exception):
    """Why a call failed, in a form that is safe to tell the caller.

    `metadata` holds facts for machines (ids, versions) and never a secret. `retry_after` is seconds until
    another try makes sense. `may_repeat` is False where the effect may have happened, or the wait was long:
    then no layer below the caller may repeat the call by itself.
    """

    reason: "reasons_pb2.Reason.ValueType" = reasons_pb2.REASON_INTERNAL

    def __init__(
        self,
        message: str,
        *,
        reason: "reasons_pb2.Reason.ValueType | None" = None,
        problems: Iterable[Problem] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        may_repeat: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after = retry_after
        self.may_repeat = may_repeat

    @property
    def code(self) -> str:
        """The reason as clients see it: "NAME_TAKEN"."""
        return reasons_pb2.Reason.Name(self.reason).removeprefix(REASON_PREFIX)

    @property
    def entry(self) -> Entry:
        """The catalogue's row of the reason."""
        return CATALOGUE[self.reason]


class Internal(HeadraceError):  # noqa: N818 - named for what happened
    """An unexpected failure. Its text stays inside; the request id finds it in the log."""

    reason = reasons_pb2.REASON_INTERNAL

    def __init__(self) -> None:
        super().__init__("an unexpected failure; the request id finds it in the log")


def summary(problems: Sequence[Problem], otherwise: str) -> str:
    """Returns one sentence for several problems: the first with its place, and how many more there are."""
    if not problems:
        return otherwise
    first = problems[0]
    told = f"{first.path}: {first.message}" if first.path else first.message
    return told if len(problems) == 1 else f"{told} (and {len(problems) - 1} more)"
