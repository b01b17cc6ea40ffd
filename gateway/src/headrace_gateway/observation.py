"""What is told of each request: a duration by operation and status, and a line in the log where that is
asked."""

from __future__ import annotations

from typing import Final, Literal

import structlog
from prometheus_client import Histogram

from .http.exchange import Answer, Request

_log = structlog.get_logger(__name__)

DURATION: Final = Histogram(
    "hr_http_server_duration_seconds",
    "How long requests took, by operation and status.",
    ["operation", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class RequestObserver:
    """Counts, times and logs requests. No id is a label: the number of series is bounded."""

    def __init__(self, access_log: Literal["all", "failures", "none"]) -> None:
        self._logged_from = {"all": 0, "failures": 500, "none": 1000}[access_log]
        self._series: dict[tuple[str, int], Histogram] = {}

    def observe(self, request: Request, operation: str, answer: Answer, seconds: float) -> None:
        """Notes a request that was answered; `operation` is empty where no RPC was meant."""
        key = (operation, answer.status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = DURATION.labels(operation or "none", str(answer.status))
        series.observe(seconds)
        if answer.status >= self._logged_from:
            _log.info(
                "request",
                method=request.method,
                path=request.path,
                status=answer.status,
                seconds=round(seconds, 4),
                operation=operation,
            )
