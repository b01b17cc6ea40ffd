"""The values of a run's parameters: checked against their declarations and written as JSON."""

import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal

from headrace_chassis.errors import InvalidParameters, Problem
from headrace_definition import DefinitionError
from headrace_definition.model import Parameter
from headrace_definition.parameters import resolve_parameters

from headrace_execution.acceptance.compiling import to_problems


def check_parameters(declared: Mapping[str, Parameter], given: bytes) -> bytes:
    """The value of each declared parameter, defaults included, as a JSON object.

    Raises:
        InvalidParameters: naming everything that does not fit.
    """
    if not declared and given in (b"", b"{}"):
        return b"{}"
    try:
        values = resolve_parameters(declared, _object(given))
    except DefinitionError as error:
        raise InvalidParameters(to_problems(error.problems)) from None
    plain = {name: plain_value(value) for name, value in values.items() if value is not None}
    return json.dumps(plain, separators=(",", ":"), sort_keys=True).encode()


def _object(given: bytes) -> dict[str, object]:
    try:
        value = json.loads(given or b"{}", parse_float=exact_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problem = Problem("INVALID_PARAMETERS", "parameters", "a JSON object of values by name was expected")
        raise InvalidParameters([problem])
    return value


def exact_number(text: str) -> float | str:
    """A number of a JSON text: as text where a float would lose digits, which a declared number takes as
    well."""
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else text


def plain_value(value: object) -> object:
    """A value as JSON has it."""
    if isinstance(value, Decimal):
        # A number where JSON's readers keep all its digits, else text, which a declared number takes as well.
        number = float(value)
        return number if Decimal(repr(number)) == value else str(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    return value
