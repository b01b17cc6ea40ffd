"""Judges what a quality check found."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from headrace_definition.plan import CheckTask

from headrace_worker.engine.failure import DATA, Failure

CHECK_FAILED = "QUALITY_CHECK_FAILED"
_LONGEST_SAMPLE = 2000


@dataclass(frozen=True)
class Finding:
    """What a check saw: how many rows (or sets) violate it, of how many, and some of them."""

    violations: int
    total: int
    sample: object


def judge(task: CheckTask, finding: Finding) -> Failure | None:
    """None where the finding is within what the check tolerates, else why it failed."""
    if finding.violations <= _tolerated(task, finding.total):
        return None
    details = {
        "check": task.type,
        "severity": task.severity,
        "violations": str(finding.violations),
        "rows": str(finding.total),
    }
    if finding.sample:
        details["sample"] = _text(finding.sample)
    message = f"{task.key}: {_said(task)}: {finding.violations} of {finding.total} rows violate it"
    if task.type in ("row_count", "freshness"):
        message = f"{task.key}: {_said(task)}: not so for these {finding.total} rows"
    return Failure(CHECK_FAILED, DATA, message, details)


def _tolerated(task: CheckTask, total: int) -> float:
    config = task.config
    by_count = config.max_violations or 0
    by_ratio = (config.max_ratio or 0.0) * total
    return max(by_count, by_ratio)


def _said(task: CheckTask) -> str:
    config = task.config
    if config.description:
        return f"{task.type} ({config.description})"
    settings = config.model_dump(
        mode="json",
        exclude_defaults=True,
        exclude={"id", "description", "input", "severity", "max_violations", "max_ratio", "type"},
    )
    said = ", ".join(f"{name} {orjson.dumps(value).decode()}" for name, value in settings.items())
    return f"{task.type} ({said[:300]})" if said else task.type


def _text(sample: object) -> str:
    text = sample if isinstance(sample, str) else orjson.dumps(sample, default=str).decode()
    return text if len(text) <= _LONGEST_SAMPLE else text[: _LONGEST_SAMPLE - 1] + "…"
