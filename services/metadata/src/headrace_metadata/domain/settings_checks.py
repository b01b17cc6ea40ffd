"""What can be wrong or questionable with a pipeline's settings, beside its definition."""

from collections.abc import Iterator

from headrace_definition import Problem
from headrace_definition.notifying import target_flaw
from headrace_definition.secret_words import holds_secret
from headrace_timetable import CronError, parse

from headrace_metadata.domain.layouts import layout_problems
from headrace_metadata.domain.names import name_flaw
from headrace_metadata.domain.pipelines import Content, Given, Notification

MAX_TAG_LENGTH = 100
_TOLD = ("RUNNING", "SUCCESS", "FAILED", "WARNING", "CANCELLED")

# Settings as requests name them.
JSON_NAMES = {
    "description": "description",
    "schedule_cron": "scheduleCron",
    "tags": "tags",
    "source_connection_id": "sourceConnectionId",
    "target_connection_id": "targetConnectionId",
    "max_retries": "maxRetries",
    "retry_delay_seconds": "retryDelaySeconds",
    "timeout_seconds": "timeoutSeconds",
    "notifications": "notifications",
    "is_active": "isActive",
    "version_label": "versionLabel",
    "layout": "layout",
    "connector_id": "connectorId",
    "schema_id": "schemaId",
}


def setting_problems(name: str, given: Given) -> list[Problem]:
    """All that is wrong with the name and the settings of a request."""
    problems = []
    if flaw := name_flaw(name):
        problems.append(Problem("INVALID_NAME", "name", flaw))
    for index, tag in enumerate(given.tags or ()):
        if not tag.strip() or not tag.isprintable() or len(tag) > MAX_TAG_LENGTH:
            problems.append(
                Problem(
                    "INVALID_TAG", f"tags[{index}]", f"must be 1 to {MAX_TAG_LENGTH} printable characters"
                )
            )
    if given.schedule_cron is not None:
        problems.extend(cron_problems(given.schedule_cron))
    for index, notification in enumerate(given.notifications or ()):
        problems.extend(_notification_problems(f"notifications[{index}]", notification))
    if given.layout is not None:
        problems.extend(layout_problems(given.layout))
    return problems


def label_problems(path: str, label: str | None) -> Iterator[Problem]:
    """What is wrong with a label that a caller gives, which is kept and shown to all who may see it."""
    if label is None:
        return
    if not label.isprintable():
        yield Problem("INVALID_VALUE", path, "must be printable characters")
    if holds_secret(label):
        yield Problem("LITERAL_SECRET", path, "it is kept and shown: it cannot hold a secret")


def cron_problems(expression: str) -> Iterator[Problem]:
    """What is wrong with a cron expression of a request."""
    try:
        parse(expression)
    except CronError as error:
        yield Problem("INVALID_CRON", "scheduleCron", str(error))


def _notification_problems(path: str, notification: Notification) -> Iterator[Problem]:
    for index, word in enumerate(notification.on):
        if word not in _TOLD:
            yield Problem("INVALID_VALUE", f"{path}.on[{index}]", f"must be one of {', '.join(_TOLD)}")
    if flaw := target_flaw(notification.type, notification.target):
        yield Problem("INVALID_VALUE", f"{path}.target", flaw)
    if notification.signing_secret is not None and notification.type != "WEBHOOK":
        told = f"is for WEBHOOK; {notification.type} has no signature"
        yield Problem("NOT_ALLOWED", f"{path}.signingSecret", told)


def setting_warnings(content: Content) -> list[Problem]:
    """What is questionable and allowed: settings that this installation cannot act on, or that hide
    others."""
    warnings = [overridden(JSON_NAMES[name]) for name in content.overridden()]
    settings = content.settings
    warnings.extend(
        _warning(
            "UNSIGNED_WEBHOOK",
            f"notifications[{index}]",
            "it names no signing secret, so that its receiver cannot tell who has sent it",
        )
        for index, each in enumerate(settings.notifications)
        if each.type == "WEBHOOK" and each.signing_secret is None
    )
    return warnings


def overridden(path: str) -> Problem:
    """The warning that the definition's text says something else than the request."""
    return _warning("OVERRIDDEN", path, "the definition's text says otherwise; the value given here wins")


def unknown_connection(reference: str, path: str) -> Problem:
    """The warning that a connection does not exist yet."""
    return _warning(
        "UNKNOWN_CONNECTION",
        path,
        f"the workspace has no connection {reference!r} yet; it is needed when the pipeline runs",
    )


def _warning(code: str, path: str, message: str) -> Problem:
    return Problem(code, path, message, severity="warning")
