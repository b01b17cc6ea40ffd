"""The JSON Schema of canonical definitions, for editors and for other languages."""

import json
from collections.abc import Mapping
from typing import Any

from headrace_definition.model import Definition

SCHEMA_ID = "https://headrace.dev/schemas/headrace-definition-v1.schema.json"


def json_schema() -> dict[str, Any]:
    """The schema, made from the model. Unions say by `const` which member they mean, so that errors stay
    readable."""
    schema = Definition.model_json_schema(by_alias=True)
    schema["properties"]["version"] = {"const": 1, **_without(schema["properties"]["version"], "const")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
        "title": "Headrace pipeline definition",
    }


def schema_text() -> str:
    """The schema as the file that is published with the package; `make generate` writes it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
