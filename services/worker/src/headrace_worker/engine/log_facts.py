"""What a log says of where rows come from."""

from __future__ import annotations

from headrace_connectors.api import Connection, SourceSpec


def source_facts(spec: SourceSpec, connection: Connection | None) -> dict[str, str]:
    """The place that a source reads, without anything that could be a secret: no option, no user."""
    facts: dict[str, str] = {}
    if connection is not None:
        facts |= {"connection": connection.name, "system": connection.type}
    for name, value in (("table", spec.table), ("path", spec.path), ("sql", spec.query)):
        if value is not None:
            facts[name] = value
    if spec.values is not None:
        facts["values"] = str(len(spec.values))
    if spec.incremental is not None:
        facts["cursor"] = spec.incremental.cursor
        facts["from"] = "the beginning" if spec.incremental.lower is None else "where the last load came to"
    return facts
