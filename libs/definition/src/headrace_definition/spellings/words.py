"""Other words that people use for types and keys of elements."""

SOURCE_WORDS = {
    "name": "id",
    "connectionId": "connection",
    "connection_id": "connection",
    "sql": "query",
    "file": "path",
    "rows": "values",
    "data": "values",
    "depends_on": "after",
    "wait_for": "after",
}

SINK_WORDS = {
    "name": "id",
    "connectionId": "connection",
    "connection_id": "connection",
    "from": "input",
    "source": "input",
    "file": "path",
    "write_mode": "mode",
    "writeMode": "mode",
    "write_disposition": "mode",
    "primary_key": "keys",
    "primaryKey": "keys",
    "unique_key": "keys",
    "merge_keys": "keys",
    "depends_on": "after",
    "wait_for": "after",
}

TRANSFORMATION_WORDS = {
    "name": "id",
    "query": "sql",
    "from": "inputs",
    "source": "inputs",
    "depends_on": "inputs",
    "where": "condition",
}

WAIT_WORDS = {
    "signalName": "signal",
    "signal_name": "signal",
    "fields": "data",
    "schema": "data",
    "expects": "data",
    "from": "inputs",
    "source": "inputs",
    "depends_on": "inputs",
}
"""Words of a task that waits for a signal; its `name` is that of the signal."""

CHECK_WORDS = {"name": "id", "level": "severity", "on": "input", "table": "input"}

MODES = {"overwrite": "replace", "truncate": "replace", "upsert": "merge", "insert": "append"}

SEVERITIES = {"warn": "warning", "fail": "error"}

FILE_FORMATS = {"csv": "csv", "json": "json", "jsonl": "json", "ndjson": "json", "parquet": "parquet"}

PLAIN_KINDS = frozenset({"table", "query", "values", "inline", "file", "database", "jdbc", "discard"})
"""Kinds of a source or sink that say no more than its other keys do."""

_TRANSFORMATIONS = (
    "sql_transform",
    "lookup_join",
    "filter",
    "select",
    "rename",
    "cast",
    "aggregate",
    "deduplicate",
    "union",
    "wait_for_signal",
)
TRANSFORMATION_TYPES = {name: name for name in _TRANSFORMATIONS} | {
    "sql": "sql_transform",
    "query": "sql_transform",
    "lookup": "lookup_join",
    "join": "lookup_join",
    "where": "filter",
    "project": "select",
    "map": "select",
    "convert": "cast",
    "group_by": "aggregate",
    "aggregation": "aggregate",
    "dedupe": "deduplicate",
    "dedup": "deduplicate",
    "distinct": "deduplicate",
    "union_all": "union",
    "concat": "union",
    "approval": "wait_for_signal",
    "wait_for_approval": "wait_for_signal",
    "signal": "wait_for_signal",
}

_CHECKS = (
    "not_null",
    "unique",
    "accepted_values",
    "range",
    "row_count",
    "freshness",
    "referential",
    "sql",
)
CHECK_TYPES = {name: name for name in _CHECKS} | {
    "notnull": "not_null",
    "non_null": "not_null",
    "uniqueness": "unique",
    "allowed_values": "accepted_values",
    "between": "range",
    "rowcount": "row_count",
    "foreign_key": "referential",
    "relationships": "referential",
    "sql_check": "sql",
    "custom_sql": "sql",
}
