"""Values for declared parameters."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from headrace_definition import DefinitionError
from headrace_definition.model import Parameter
from headrace_definition.parameters import resolve_parameters


def declared(**kinds: str) -> dict[str, Parameter]:
    return {name: Parameter.model_validate_json(f'{{"type": "{kind}"}}') for name, kind in kinds.items()}


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("string", "x", "x"),
        ("integer", 5, 5),
        ("integer", "5", 5),
        ("integer", 5.0, 5),
        ("number", 1.5, 1.5),
        ("number", "1.50", Decimal("1.50")),
        ("boolean", True, True),
        ("boolean", "False", False),
        ("date", "2025-01-31", date(2025, 1, 31)),
        ("timestamp", "2025-01-31T06:00:00Z", datetime(2025, 1, 31, 6, tzinfo=UTC)),
    ],
)
def test_values_take_the_declared_type(kind: str, given: object, value: object) -> None:
    assert resolve_parameters(declared(p=kind), {"p": given}) == {"p": value}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("string", 5),
        ("integer", "5.5"),
        ("integer", 5.5),
        ("integer", True),
        ("integer", "9" * 50),
        ("number", "NaN"),
        ("number", "1e999999"),
        ("number", True),
        ("boolean", 1),
        ("boolean", "yes"),
        ("date", "31.1.2025"),
        ("date", 20250131),
        ("timestamp", "soon"),
    ],
)
def test_values_of_other_types_are_refused(kind: str, given: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        resolve_parameters(declared(p=kind), {"p": given})
    assert [(p.code, p.path) for p in caught.value.problems] == [("PARAMETER_VALUE", "parameters.p")]


def test_all_faults_are_told_at_once_with_suggestions() -> None:
    parameters = declared(days="integer", label="string") | {
        "a": Parameter(required=True),
        "b": Parameter(required=True),
        "mode": Parameter(enum=("full", "delta")),
    }
    with pytest.raises(DefinitionError) as caught:
        resolve_parameters(parameters, {"dais": 1, "label": 5, "mode": "other"})
    found = [(p.code, p.path, p.suggestion) for p in caught.value.problems]
    assert found == [
        ("UNKNOWN_PARAMETER", "parameters.dais", "days"),
        ("PARAMETER_VALUE", "parameters.label", None),
        ("MISSING_PARAMETER", "parameters.a", None),
        ("MISSING_PARAMETER", "parameters.b", None),
        ("PARAMETER_VALUE", "parameters.mode", None),
    ]


def test_defaults_serve_where_nothing_is_given() -> None:
    parameters = {"days": Parameter(type="integer", default=3), "note": Parameter()}
    assert resolve_parameters(parameters, {}) == {"days": 3, "note": None}
    assert resolve_parameters(parameters, {"days": None}) == {"days": 3, "note": None}
