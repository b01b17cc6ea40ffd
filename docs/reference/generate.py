"""Writes the reference pages that are made from code: settings, error codes and the definition language.

Run by `make generate`: `python docs/reference/generate.py settings` prints one page. `make check` demands
that the committed pages equal what this prints.
"""

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import headrace
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from headrace.common.v1 import reasons_pb2
from headrace_chassis.catalogue import CATALOGUE
from headrace_chassis.settings import Settings
from headrace_definition import json_schema
from headrace_execution.config import ExecutionSettings
from headrace_gateway.config import GatewaySettings
from headrace_metadata.config import MetadataSettings
from headrace_scheduler.config import SchedulerSettings
from headrace_worker.config import WorkerSettings
from pydantic_core import PydanticUndefined

PROCESSES: Mapping[str, type[Settings]] = {
    "metadata": MetadataSettings,
    "execution": ExecutionSettings,
    "scheduler": SchedulerSettings,
    "worker": WorkerSettings,
    "gateway": GatewaySettings,
}


def settings_page() -> Iterator[str]:
    """One table of all environment variables."""
    yield "# Settings"
    yield ""
    yield _prose(
        "Each process is set up by environment variables, read once at its start. A missing or "
        "malformed one, a secret file that does not exist, and a misspelt `HEADRACE_…` variable "
        "fail the start and are named."
    )
    yield ""
    yield "| variable | processes | default | meaning |"
    yield "|---|---|---|---|"
    for name in sorted({field for model in PROCESSES.values() for field in model.model_fields}):
        readers = [process for process, model in PROCESSES.items() if name in model.model_fields]
        field = PROCESSES[readers[0]].model_fields[name]
        meaning = _cell(field.description or "")
        yield f"| `{name.upper()}` | {', '.join(readers)} | {_default(field)} | {meaning} |"


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "of the machine"  # the page must be the same wherever it is made
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        value = ",".join(str(part) for part in value)
    return f"`{value}`"


def errors_page() -> Iterator[str]:
    """All reasons, with what each is over gRPC and HTTP."""
    files = FileDescriptorSet.FromString(headrace.descriptor_set()).file
    source = next(file for file in files if file.name == "headrace/common/v1/reasons.proto")
    comments = {
        tuple(place.path): place.leading_comments.strip() for place in source.source_code_info.location
    }
    yield "# Error codes"
    yield ""
    yield _prose(
        "An error is a problem document (RFC 9457) over HTTP and a `google.rpc.Status` over gRPC. "
        "Its `code`, which is the `reason` of the status's ErrorInfo (domain `headrace.io`), is "
        "stable: branch on it, not on the text."
    )
    yield ""
    yield "| code | HTTP | gRPC | when |"
    yield "|---|---|---|---|"
    for index, value in enumerate(reasons_pb2.Reason.DESCRIPTOR.values):
        if value.number == reasons_pb2.REASON_UNSPECIFIED:
            continue
        entry = CATALOGUE[reasons_pb2.Reason.ValueType(value.number)]
        # The path of a value in a file's descriptor: enum_type (5), the first enum, value (2), its index.
        text = " ".join(comments[5, 0, 2, index].split())
        yield f"| `{value.name.removeprefix('REASON_')}` | {entry.http} | {entry.code.name} | {_cell(text)} |"


def definition_page() -> Iterator[str]:
    """Every element of a definition with its fields, from the JSON Schema."""
    schema = json_schema()
    yield "# The definition language"
    yield ""
    yield _prose(
        "What a definition may hold, in its canonical spelling. Editors can check against the same "
        "rules with `libs/definition/src/headrace_definition/headrace-definition-v1.schema.json`. "
        "The other spellings (a single `source` and `target`, `transforms` and `destinations`, "
        "`nodes` and `edges`, `config`) normalise into this one."
    )
    yield from _element("A definition", schema)
    for name, element in sorted(schema.get("$defs", {}).items()):
        if "properties" in element:
            yield from _element(name, element)


def _element(title: str, element: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    if element.get("description") and title != "A definition":
        yield ""
        yield " ".join(str(element["description"]).split())
    yield ""
    yield "| field | type | needed | meaning |"
    yield "|---|---|---|---|"
    needed = set(element.get("required", ()))
    for name, field in element["properties"].items():
        mark = "yes" if name in needed else ""
        yield f"| `{name}` | {_cell(_type(field))} | {mark} | {_cell(field.get('description', ''))} |"


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type(option) for option in field[key]))
    kind = field.get("type", "any")
    if kind == "array" and isinstance(field.get("items"), Mapping):
        return f"list of {_type(field['items'])}"
    if kind == "object" and isinstance(field.get("additionalProperties"), Mapping):
        return f"map to {_type(field['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _prose(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "settings": settings_page,
    "errors": errors_page,
    "definition": definition_page,
}

if __name__ == "__main__":
    sys.stdout.write("\n".join(PAGES[sys.argv[1]]()) + "\n")
