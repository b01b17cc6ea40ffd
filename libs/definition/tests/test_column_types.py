"""Canonical column types."""

import pytest
from headrace_definition.column_types import SIMPLE_TYPES, parse_type


@pytest.mark.parametrize("name", SIMPLE_TYPES)
def test_canonical_names_stay_as_they_are(name: str) -> None:
    assert str(parse_type(name)) == name
    assert str(parse_type(name.lower() + "[]")) == name + "[]"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("text", "VARCHAR"),
        ("int8", "BIGINT"),
        ("double  precision", "DOUBLE"),
        ("timestamp with time zone", "TIMESTAMPTZ"),
        ("numeric(10, 2)", "DECIMAL(10,2)"),
        ("Decimal(38)", "DECIMAL(38,0)"),
        ("decimal(5,5)[][]", "DECIMAL(5,5)[][]"),
    ],
)
def test_aliases_become_canonical(text: str, canonical: str) -> None:
    assert str(parse_type(text)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DECIMAL", "precision and scale"),
        ("DECIMAL(39,2)", "1 to 38"),
        ("DECIMAL(0)", "1 to 38"),
        ("DECIMAL(5,6)", "cannot exceed"),
        ("VARCHAR(20)", "not enforced"),
        ("FLOAT", "REAL"),
        ("money", "expected one of"),
        ("", "expected one of"),
        ("INTEGER" + "[]" * 7, "dimensions"),
        ("INTEGER); DROP TABLE x; --", "expected one of"),
    ],
)
def test_what_is_no_type_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_type(text)
