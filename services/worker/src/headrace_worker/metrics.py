"""What the worker counts, for Prometheus."""

from __future__ import annotations

from typing import Final

from headrace.execution.v1 import workers_pb2
from prometheus_client import Counter, Gauge, Histogram

ENDED: Final = Counter("hr_worker_assignments_total", "Assignments that have ended.", ["kind", "outcome"])
SECONDS: Final = Histogram(
    "hr_worker_assignment_seconds",
    "From an assignment's arrival to its result.",
    ["kind"],
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300, 1800, 7200),
)
ACTIVE: Final = Gauge("hr_worker_active_assignments", "Assignments that are being worked off.")
CONNECTED: Final = Gauge("hr_worker_connected", "Whether there is a stream to the server: 1 or 0.")


def ended(
    kind: workers_pb2.AssignmentKind.ValueType, outcome: workers_pb2.Outcome.ValueType, seconds: float
) -> None:
    """Count an assignment that has a result."""
    kind_name = workers_pb2.AssignmentKind.Name(kind).removeprefix("ASSIGNMENT_KIND_").lower()
    outcome_name = workers_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()
    ENDED.labels(kind_name, outcome_name).inc()
    SECONDS.labels(kind_name).observe(seconds)
