"""What is wrong with a definition, with the place in the user's own text."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from headrace_definition.nodes import Node, Scalar, path_text
from headrace_definition.suggestions import nearest

Severity = Literal["error", "warning"]

MAX_PROBLEMS = 200
"""Problems that are reported of one definition; a broken text of a thousand tasks repeats itself."""


MAX_SUGGESTIONS = 100
"""Problems that come with a suggestion: finding one costs more than all else, and a text may have 50,000."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. Its texts never hold a value of the definition that could be a secret."""

    code: str
    """Stable, UPPER_SNAKE."""
    path: str
    """Where, in the words of the text as it was written: `transformations[2].sql`; empty for the whole."""
    message: str
    line: int | None = None
    """From 1."""
    column: int | None = None
    """From 1, in characters."""
    suggestion: str | None = None
    """The nearest valid word, alone."""
    severity: Severity = "error"

    def __str__(self) -> str:
        place = "" if self.line is None else f"{self.line}:{self.column}: "
        at = f"{self.path}: " if self.path else ""
        hint = f" (did you mean {self.suggestion!r}?)" if self.suggestion else ""
        return f"{place}{self.code}: {at}{self.message}{hint}"


class DefinitionError(ValueError):
    """The definition cannot be used; `problems` says all that is wrong with it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(slots=True)
class Findings:
    """Collects problems while a definition is read, so that its author gets all of them at once."""

    found: list[Problem] = field(default_factory=list)
    suggestions_left: int = MAX_SUGGESTIONS

    def nearest(self, word: str, candidates: Iterable[str]) -> str | None:
        """The candidate that a word was probably meant to be, for the first problems of a text alone."""
        if self.suggestions_left <= 0:
            return None
        self.suggestions_left -= 1
        return nearest(word, candidates)

    def error(
        self, code: str, at: Node, message: str, *, suggestion: str | None = None, key: str = ""
    ) -> None:
        """Adds an error at a node; `key` names a key of it that the path should end with."""
        self.found.append(_problem(code, at, message, suggestion, "error", key))

    def warning(
        self, code: str, at: Node, message: str, *, suggestion: str | None = None, key: str = ""
    ) -> None:
        """Adds a warning at a node."""
        self.found.append(_problem(code, at, message, suggestion, "warning", key))

    def error_within(self, code: str, at: Scalar, offset: int, source: str, message: str) -> None:
        """Adds an error at a character of a scalar's value, placed where `source` has that character."""
        line, column = at.position_of(offset, source)
        problem = _problem(code, at, message, None, "error", "")
        self.found.append(replace(problem, line=line, column=column))

    def escalate(self, codes: frozenset[str]) -> None:
        """Makes errors of the warnings with these codes."""
        self.found = [
            replace(problem, severity="error") if problem.code in codes else problem for problem in self.found
        ]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors, in the order of the text."""
        return _in_order(problem for problem in self.found if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The warnings, in the order of the text."""
        return _in_order(problem for problem in self.found if problem.severity == "warning")


def _problem(
    code: str, at: Node, message: str, suggestion: str | None, severity: Severity, key: str
) -> Problem:
    path = path_text(at.where)
    if key:
        path = f"{path}.{key}" if path else key
    return Problem(code, path, message, at.line, at.column, suggestion, severity)


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    unique = dict.fromkeys(problems)
    ordered = sorted(unique, key=lambda problem: (problem.line or 0, problem.column or 0))
    if len(ordered) <= MAX_PROBLEMS:
        return tuple(ordered)
    left = len(ordered) - MAX_PROBLEMS
    last = Problem("MORE_PROBLEMS", "", f"and {left} more", severity=ordered[-1].severity)
    return (*ordered[:MAX_PROBLEMS], last)
