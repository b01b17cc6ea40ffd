"""What all parts of the model share: strictness, names, and the common field types."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from headrace_definition.column_types import parse_type
from headrace_definition.durations import format_duration, parse_duration

TASK_KEY_PATTERN = r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$"
NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Element(BaseModel):
    """A part of a definition: immutable, strictly typed, and closed to keys it does not know."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="constants"
    )


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


def _duration(value: object) -> object:
    if isinstance(value, str | int):
        return parse_duration(value)
    return value


def _canonical_type(value: str) -> str:
    return str(parse_type(value))


def any_case(*, upper: bool) -> BeforeValidator:
    """Words of a fixed list are accepted in any case; the canonical text has the one of the list."""

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return value.strip().upper() if upper else value.strip().lower()
        return value

    return BeforeValidator(convert)


TaskKey = Annotated[str, StringConstraints(pattern=TASK_KEY_PATTERN)]
"""The name of a task, unique in a definition whatever the case; SQL reads the task's rows under it."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""The name of a parameter."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_printable)]
"""One line of text: a connection's name, a table, a path."""

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
"""A column, as the system that holds it spells it."""

Sql = Annotated[str, StringConstraints(min_length=1)]
"""SQL text: a whole SELECT statement or an expression, as the field says."""

Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}],
            "examples": ["30s", "5m", "1h30m", "2d", "PT5M", 3600],
        }
    ),
]
"""A length of time: `30s`, `5m`, `1h30m`, ISO 8601, or whole seconds."""

TypeName = Annotated[str, AfterValidator(_canonical_type)]
"""A canonical column type, see headrace_definition.column_types."""
