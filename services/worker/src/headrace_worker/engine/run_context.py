"""What a stage needs to know of the run that it belongs to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.execution.v1 import workers_pb2


@dataclass(frozen=True)
class RunContext:
    """One attempt of one stage, or a chore, as the server handed it out."""

    assignment_id: str
    fence: int
    run_id: str = ""
    root_run_id: str = ""
    pipeline_id: str = ""
    attempt: int = 1
    parameters: Mapping[str, object] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values that `${env.NAME}` has in this run instead of the worker's own."""
    signals: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What the signals said that the stage uses, by their names."""
    logical_date: dt.datetime | None = None
    interval_start: dt.datetime | None = None
    interval_end: dt.datetime | None = None
    cursors: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    """Where incremental sources go on: (sink, source) to the connector's own value."""
    cursor_fences: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """The fences of the loads that brought `cursors` there; 0 where none has landed."""
    landed: Mapping[str, workers_pb2.Receipt] = field(default_factory=dict)
    """The outputs that earlier attempts have landed, by sink."""
    full_refresh: bool = False
    timeout_seconds: float | None = None
