"""What people read of an attempt: lines about its steps, redacted where they are written, bounded in number
and size. Writing one never waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from headrace.execution.v1 import logs_pb2

from headrace_worker.engine.redaction import Redactor

DEBUG = logs_pb2.LOG_LEVEL_DEBUG
INFO = logs_pb2.LOG_LEVEL_INFO
WARNING = logs_pb2.LOG_LEVEL_WARNING
ERROR = logs_pb2.LOG_LEVEL_ERROR

LONGEST_MESSAGE = 4000
LONGEST_FIELD = 8000
_MOST_FIELDS = 20

BURST = 500
"""How many lines may be written at once."""
LINES_A_SECOND = 50.0
"""How many lines may be written in the long run; what is beyond is left out and counted."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""What could forge lines or colours where a log is printed; tabs and newlines stay."""

Level: TypeAlias = logs_pb2.LogLevel.ValueType


class RunLog:
    """The lines of one attempt until they are taken away. `monotonic` is in seconds."""

    def __init__(self, now: Callable[[], datetime], monotonic: Callable[[], float], attempt: int = 1) -> None:
        self.redactor = Redactor()
        self._now = now
        self._monotonic = monotonic
        self._attempt = attempt
        self._lines: list[logs_pb2.LogLine] = []
        self._budget = float(BURST)
        self._budget_at = monotonic()
        self._left_out = 0

    def debug(self, task: str, message: str, /, **fields: object) -> None:
        """For those who look for the cause of something."""
        self._write(DEBUG, task, message, fields)

    def info(self, task: str, message: str, /, **fields: object) -> None:
        """What goes on."""
        self._write(INFO, task, message, fields)

    def warning(self, task: str, message: str, /, **fields: object) -> None:
        """Questionable, but it goes on."""
        self._write(WARNING, task, message, fields)

    def error(self, task: str, message: str, /, **fields: object) -> None:
        """What failed. Never left out."""
        self._write(ERROR, task, message, fields)

    def take(self) -> list[logs_pb2.LogLine]:
        """The lines that were not taken yet."""
        if self._left_out and self._has_budget():
            left_out, self._left_out = self._left_out, 0
            message = (
                f"{left_out} lines are left out here: more than {LINES_A_SECOND:g} a second were written"
            )
            self._lines.append(log_line(self._now(), WARNING, "", self._attempt, message, {}))
        lines, self._lines = self._lines, []
        return lines

    def _write(self, level: Level, task: str, message: str, fields: Mapping[str, object]) -> None:
        if not self._has_budget() and level != ERROR:
            self._left_out += 1
            return
        self._budget -= 1
        texts = {name: str(value) for name, value in list(fields.items())[:_MOST_FIELDS] if value is not None}
        redacted = self.redactor.mapping(texts)
        self._lines.append(
            log_line(self._now(), level, task, self._attempt, self.redactor.text(message), redacted)
        )

    def _has_budget(self) -> bool:
        now = self._monotonic()
        self._budget = min(BURST, self._budget + (now - self._budget_at) * LINES_A_SECOND)
        self._budget_at = now
        return self._budget >= 1


def log_line(
    time: datetime, level: Level, task: str, attempt: int, message: str, fields: Mapping[str, str]
) -> logs_pb2.LogLine:
    """A line, cut to size and without control characters. Its texts must hold no secret."""
    line = logs_pb2.LogLine(
        level=level,
        task=task,
        attempt=attempt,
        message=_plain(message, LONGEST_MESSAGE),
        fields={name: _plain(value, LONGEST_FIELD) for name, value in fields.items()},
    )
    line.time.FromDatetime(time)
    return line


def _plain(text: str, longest: int) -> str:
    text = _CONTROL.sub("\ufffd", text)
    text = text.encode("utf-8", "replace").decode()  # lone surrogates, which protobuf does not carry
    return text if len(text) <= longest else text[: longest - 1] + "…"
