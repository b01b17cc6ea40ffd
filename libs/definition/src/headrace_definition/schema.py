"""The JSON Schema of canonical definitions, for editors and for other languages."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from headrace_definition.model import Definition

SCHEMA_ID = "https://headrace.dev/schemas/headrace-definition-v1.schema.json"
SCHEMA_FILE = "headrace-definition-v1.schema.json"


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
    """The schema as the file that is published with the package."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def published_schema() -> str:
    """The text of the published file; a test holds it equal to `schema_text()`."""
    return files("headrace_definition").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")


def write_schema() -> None:
    """Writes the published file anew, after the model has changed."""
    path = files("headrace_definition").joinpath(SCHEMA_FILE)
    Path(str(path)).write_text(schema_text(), encoding="utf-8")


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
