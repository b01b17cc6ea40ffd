"""What is told, for people: as a mail and as a message of Slack."""

import json
from collections.abc import Mapping
from typing import Any, Final

_HEADLINES: Final[Mapping[str, str]] = {
    "run.running": "a run has started",
    "run.success": "a run has completed",
    "run.warning": "a run has completed with warnings",
    "run.failed": "a run has failed",
    "run.cancelled": "a run was cancelled",
}
_FACTS: Final = (
    ("error", "Error"),
    ("message", "Found"),
    ("severity", "Severity"),
    ("warningCount", "Warnings"),
    ("startedAt", "Started"),
    ("finishedAt", "Ended"),
    ("intervalStart", "Interval from"),
    ("intervalEnd", "Interval to"),
    ("triggeredBy", "Started by"),
    ("runId", "Run"),
    ("alertId", "Alert"),
    ("pipelineId", "Pipeline"),
)


def subject(body: str) -> str:
    """One line: which pipeline, and what has happened."""
    told = json.loads(body)
    return f"{told['data']['pipelineName']}: {_headline(told)}"


def text(body: str) -> str:
    """The facts, one a line."""
    data = json.loads(body)["data"]
    return "\n".join(f"{label}: {data[name]}" for name, label in _FACTS if data.get(name) not in (None, 0))


def slack_message(body: str) -> bytes:
    """A message whose text nothing of a user's can turn into a link or a mention."""
    message = f"*{_escaped(subject(body))}*\n{_escaped(text(body))}"
    return json.dumps({"text": message}, separators=(",", ":")).encode()


def _headline(told: Mapping[str, Any]) -> str:
    if told["type"] == "alert.opened":
        return f"alert {told['data']['rule']}"
    return _HEADLINES[told["type"]]


def _escaped(words: str) -> str:
    """As Slack demands (https://docs.slack.dev/messaging/formatting-message-text#escaping)."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
