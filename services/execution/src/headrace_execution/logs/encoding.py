"""Lines as they lie in the artifact store: one JSON object a line."""

import json
from collections.abc import Sequence
from datetime import datetime

from headrace_execution.domain.logs import Level, LogLine


def dump_lines(lines: Sequence[LogLine]) -> bytes:
    """Lines as the content of an object."""
    return b"".join(_dump(line) for line in lines)


def _dump(line: LogLine) -> bytes:
    value = {
        "time": line.time.isoformat(),
        "level": line.level,
        "task": line.task,
        "attempt": line.attempt,
        "message": line.message,
        "fields": dict(line.fields),
    }
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def load_lines(content: bytes) -> list[LogLine]:
    """Lines again."""
    return [_load(text) for text in content.splitlines()]


def _load(text: bytes) -> LogLine:
    value = json.loads(text)
    return LogLine(
        time=datetime.fromisoformat(value["time"]),
        level=Level(value["level"]),
        message=value["message"],
        task=value["task"],
        attempt=value["attempt"],
        fields=value["fields"],
    )
