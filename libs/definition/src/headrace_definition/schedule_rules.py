"""The schedule of a definition: its cron expression, zone and limits."""

from headrace_timetable import CronError, check_timezone, parse

from headrace_definition.model import Definition, Schedule
from headrace_definition.nodes import Mapping, Node
from headrace_definition.problems import Findings


def check_orchestration(definition: Definition, root: Mapping, findings: Findings) -> None:
    """Adds what is wrong with the schedule, where there is one."""
    if definition.orchestration is None or definition.orchestration.schedule is None:
        return
    orchestration = root.get("orchestration")
    node = orchestration.get("schedule") if isinstance(orchestration, Mapping) else None
    if isinstance(node, Mapping):
        _check(definition.orchestration.schedule, node, findings)


def _check(schedule: Schedule, node: Mapping, findings: Findings) -> None:
    try:
        parse(schedule.cron)
    except CronError as error:
        findings.error("INVALID_CRON", _value(node, "cron"), str(error))
    try:
        check_timezone(schedule.timezone)
    except ValueError as error:
        findings.error("INVALID_TIMEZONE", _value(node, "timezone"), str(error))
    if schedule.catchup_strategy == "RUN_LATEST_N" and schedule.catchup_limit is None:
        message = "catchup_strategy RUN_LATEST_N needs its number"
        findings.error("MISSING_KEY", node, message, key="catchup_limit")


def _value(node: Mapping, key: str) -> Node:
    return node.get(key) or node
