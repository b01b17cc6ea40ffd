"""The values of a run's variables: only names that its definition refers to as `${env.NAME}`."""

import json

from headrace_chassis.errors import InvalidParameters, Problem
from headrace_definition.plan import Plan
from headrace_definition.substitution import references
from headrace_definition.suggestions import nearest


def check_variables(plan: Plan, given: bytes) -> bytes | None:
    """The values as texts, as a JSON object; None where none are given.

    Raises:
        InvalidParameters: naming everything that does not fit. Values are not repeated.
    """
    if given in (b"", b"{}"):
        return None
    try:
        # Numbers as they are written: no digit is lost.
        values = json.loads(given, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        problem = Problem("INVALID_VARIABLES", "variables", "a JSON object of values by name was expected")
        raise InvalidParameters([problem])
    known = references(plan.model_dump_json(), "env")
    flaws = [_flaw(name, value, known) for name, value in values.items()]
    problems = [flaw for flaw in flaws if flaw is not None]
    if problems:
        raise InvalidParameters(problems)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return json.dumps(texts, separators=(",", ":"), sort_keys=True).encode()


def _flaw(name: str, value: object, known: frozenset[str]) -> Problem | None:
    path = f"variables.{name}"
    if name not in known:
        message = f"the definition does not refer to ${{env.{name}}}"
        return Problem("UNKNOWN_VARIABLE", path, message, suggestion=nearest(name, known))
    if not isinstance(value, str | bool):
        return Problem("INVALID_VALUE", path, "a text, a number or a boolean was expected")
    return None
