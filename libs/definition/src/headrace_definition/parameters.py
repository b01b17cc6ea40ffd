"""Values for declared parameters: checked by type, all faults at once."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

from headrace_definition.model import Parameter
from headrace_definition.problems import DefinitionError, Problem
from headrace_definition.substitution import BoundValue
from headrace_definition.suggestions import nearest

_EXPECTED = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date such as 2025-01-31",
    "timestamp": "a time such as 2025-01-31T06:00:00Z",
}


def resolve_parameters(
    declared: Mapping[str, Parameter],
    given: Mapping[str, object],
    *,
    where: str = "parameters",
    noun: str = "parameter",
) -> dict[str, BoundValue]:
    """The value of each declared parameter: the given one, else its default, else None.

    What a signal says is declared in the same way; `where` is then the path that problems have, and `noun`
    what is spoken of.

    Values may come as text, as a query or form gives them: `"5"` is an integer where one is declared.

    Raises:
        DefinitionError: naming every unknown name, every value of a wrong type and every missing required
        one.
    """
    word = noun.upper()
    problems = [
        Problem(
            f"UNKNOWN_{word}",
            f"{where}.{name}",
            f"the definition declares no {noun} of this name",
            suggestion=nearest(name, declared),
        )
        for name in given
        if name not in declared
    ]
    values: dict[str, BoundValue] = {}
    for name, parameter in declared.items():
        value = given.get(name)
        if value is None:
            value = parameter.default
        if value is None:
            if parameter.required:
                problems.append(Problem(f"MISSING_{word}", f"{where}.{name}", "is required and has no value"))
            values[name] = None
            continue
        try:
            values[name] = parameter_value(parameter, value)
        except ValueError as error:
            problems.append(Problem(f"{word}_VALUE", f"{where}.{name}", str(error)))
    if problems:
        raise DefinitionError(tuple(problems))
    return values


def parameter_value(parameter: Parameter, value: object) -> BoundValue:
    """One value as the parameter's type.

    Raises:
        ValueError: when it is not of the type, or not one of those allowed. The value is not repeated.
    """
    converted = _convert(parameter.type, value)
    if parameter.enum is not None:
        allowed = [_convert(parameter.type, option) for option in parameter.enum]
        if converted not in allowed:
            raise ValueError(f"must be one of {', '.join(str(option) for option in allowed)}")
    return converted


def _convert(kind: str, value: object) -> BoundValue:
    try:
        converted = _typed(kind, value)
    except (ValueError, InvalidOperation, OverflowError):
        converted = None
    if converted is None:
        raise ValueError(f"must be {_EXPECTED[kind]}")
    return converted


def _typed(kind: str, value: object) -> BoundValue:
    """The value as that type, or None where it is of another."""
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "boolean":
        words = {"true": True, "false": False}
        return (
            value if isinstance(value, bool) else words.get(value.lower()) if isinstance(value, str) else None
        )
    if isinstance(value, bool):
        return None
    if kind == "integer":
        return _integer(value)
    if kind == "number":
        return _decimal(value)
    if not isinstance(value, str):
        return None
    return date.fromisoformat(value) if kind == "date" else datetime.fromisoformat(value)


def _integer(value: object) -> int | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        return int(value) if len(value) <= 40 else None
    return value if isinstance(value, int) else None


def _decimal(value: object) -> int | float | Decimal | None:
    if isinstance(value, str):
        number = Decimal(value)
        # A tiny text such as 1e999999 would otherwise become a literal of a million digits.
        return number if number.is_finite() and abs(number.adjusted()) <= 400 else None
    return value if isinstance(value, int | float) else None
