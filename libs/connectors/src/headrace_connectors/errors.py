"""What a connector says when something goes wrong.

One exception type crosses the boundary of this package.  Its code is stable and meant for programs, its class
decides about retries, its message is meant for people and never holds a secret.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class ErrorClass(enum.Enum):
    """Why something failed, in the four classes that decide whether trying again can help."""

    TRANSIENT = "TRANSIENT"
    """May go away by itself (network, lock, restart): worth a retry."""
    CONFIGURATION = "CONFIGURATION"
    """Somebody must change a setting, a definition or a permission first."""
    DATA = "DATA"
    """The data does not fit where it should go; the same data will fail again."""
    QUOTA = "QUOTA"
    """A disk, memory or other limit is used up."""


class ConnectorError(Exception):
    """A precise failure of a source, a sink or a connection.

    ``code`` is UPPER_SNAKE and stable; ``details`` names the place (``table``, ``column``, ``row``, ``line``,
    ``value_class``, ``path``, …) as strings.  Values of cells are not part of it, but for the key that finds
    a row.
    """

    def __init__(
        self, code: str, error_class: ErrorClass, message: str, details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.error_class = error_class
        self.message = message
        self.details: dict[str, str] = dict(details or {})

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.code, self.error_class, self.message, self.details))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code}, {self.error_class.value}, {self.message!r})"


class FencedOut(ConnectorError):  # noqa: N818 - the field's word for it, and callers catch it by this name
    """A newer attempt, or a cancellation, owns this load: the caller must stop and must not retry by
    itself."""


def transient(code: str, message: str, **details: str) -> ConnectorError:
    """An error that may go away by itself."""
    return ConnectorError(code, ErrorClass.TRANSIENT, message, details)


def configuration(code: str, message: str, **details: str) -> ConnectorError:
    """An error that somebody must fix in a setting or a definition."""
    return ConnectorError(code, ErrorClass.CONFIGURATION, message, details)


def data(code: str, message: str, **details: str) -> ConnectorError:
    """An error that lies in the rows themselves."""
    return ConnectorError(code, ErrorClass.DATA, message, details)


def quota(code: str, message: str, **details: str) -> ConnectorError:
    """An error of a limit that is used up."""
    return ConnectorError(code, ErrorClass.QUOTA, message, details)


def fenced_out(task: str, fence: int, standing: int, tombstoned: bool) -> FencedOut:
    """The refusal of an attempt whose fence is older than the one standing in the ledger."""
    why = "the load was cancelled" if tombstoned else "a newer attempt owns the load"
    return FencedOut(
        "LOAD_FENCED_OUT",
        ErrorClass.CONFIGURATION,
        f"task {task}: attempt with fence {fence} may not write: {why} (fence {standing} stands)",
        {"task": task, "fence": str(fence), "standing_fence": str(standing)},
    )
