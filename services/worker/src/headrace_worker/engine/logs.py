"""Logs of a stage process: JSON lines on the worker's standard error, without the secrets of the
assignment.
"""

from __future__ import annotations

import datetime as dt
import logging

import orjson

from headrace_worker.engine.redaction import Redactor


class StageLogFormatter(logging.Formatter):
    """One JSON object a record; the assignment is named in each."""

    def __init__(self) -> None:
        super().__init__()
        self.redactor = Redactor()
        self.assignment = ""
        self.trace_id = ""

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        told = {
            "timestamp": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self.redactor.text(record.getMessage()),
            "assignment": self.assignment,
            "pid": record.process,
        }
        if self.trace_id:
            told["trace_id"] = self.trace_id
        if record.exc_info:
            told["exception"] = self.redactor.text(self.formatException(record.exc_info))
        return orjson.dumps(told).decode()


def log_to_stderr() -> StageLogFormatter:
    """Send what is logged from now on to standard error. Returns the formatter, to be told what it is
    about.
    """
    formatter = StageLogFormatter()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return formatter
