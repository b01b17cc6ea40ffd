"""What the types of single fields cannot say: which keys go together, and which are missing.

What may still be filled in later (a connection, a table, a condition) is INCOMPLETE: a warning while a
definition is stored, and an error when it is to run.
"""

from headrace_definition.columns import duplicate
from headrace_definition.formats import file_format
from headrace_definition.model import (
    Filter,
    LookupJoin,
    Range,
    Referential,
    RowCount,
    Select,
    Sink,
    Source,
    SqlTransform,
)
from headrace_definition.problems import Findings
from headrace_definition.tasks import TaskDraft

_SOURCE_PLACES = ("values", "path", "table", "query", "connector")
_SINK_PLACES = ("discard", "output", "path", "table", "connector")
_FORMAT = "the format cannot be told from the file name; give `format`: csv, json or parquet"


def check_shape(task: TaskDraft, findings: Findings) -> None:
    """Adds what is wrong or incomplete about one task by itself."""
    element = task.element
    if isinstance(element, Source):
        _source(task, element, findings)
    elif isinstance(element, Sink):
        _sink(task, element, findings)
    elif task.kind == "transform":
        _transformation(task, findings)
    else:
        _check(task, findings)


def _conflict(task: TaskDraft, key: str, other: str, findings: Findings) -> None:
    findings.error("CONFLICTING_KEYS", task.node.key_node(key), f"cannot stand beside `{other}`")


def _one_place(task: TaskDraft, places: tuple[str, ...], element: Source | Sink, findings: Findings) -> None:
    given = [name for name in places if getattr(element, name) not in (None, False)]
    for other in given[1:]:
        _conflict(task, other, given[0], findings)
    if element.connection is not None and given and given[0] in ("values", "connector", "discard", "output"):
        _conflict(task, "connection", given[0], findings)
    if element.connector is None:
        for key in ("stream", "config"):
            if getattr(element, key) is not None:
                findings.error(
                    "CONFLICTING_KEYS",
                    task.node.key_node(key),
                    "belongs to a `connector`, which is not given",
                )


def _source(task: TaskDraft, source: Source, findings: Findings) -> None:
    _one_place(task, _SOURCE_PLACES, source, findings)
    of_rows = next((name for name in ("values", "path") if getattr(source, name) is not None), None)
    for key in ("incremental", "split"):
        if getattr(source, key) is not None and of_rows is not None:
            _conflict(task, key, of_rows, findings)
    if source.values is not None and not source.values and not source.declared_schema:
        findings.error(
            "INVALID_VALUE", task.place("values"), "needs a row, or a `schema` that names the columns"
        )
    if source.path is not None and source.format is None and file_format(source.path) is None:
        findings.error("MISSING_KEY", task.place("path"), _FORMAT)
    if source.split is not None and source.query is not None and source.split.column is None:
        findings.error(
            "MISSING_KEY", task.place("split"), "a query can only be split by a column that is named"
        )
    if source.columns and (twice := duplicate(source.columns)):
        findings.error("DUPLICATE_COLUMN", task.place("columns"), f"the column {twice!r} is listed twice")


def _sink(task: TaskDraft, sink: Sink, findings: Findings) -> None:
    _one_place(task, _SINK_PLACES, sink, findings)
    if sink.path is not None and sink.format is None and file_format(sink.path) is None:
        findings.error("MISSING_KEY", task.place("path"), _FORMAT)
    if sink.output is not None:
        _output(task, sink, findings)
    if sink.mode == "merge" and sink.keys is None and not sink.discard:
        findings.error(
            "MISSING_KEY", task.place("mode"), "mode merge needs `keys`, the columns that identify a row"
        )
    if sink.mode == "merge" and sink.path is not None:
        findings.error(
            "CONFLICTING_KEYS", task.place("mode"), "rows cannot be merged into a file; use replace"
        )
    if sink.mode != "merge" and sink.keys is not None:
        findings.warning("UNUSED_KEY", task.node.key_node("keys"), "only mode merge uses keys")
    if sink.mode == "replace_partition" and sink.partition is None and not sink.discard:
        message = "mode replace_partition needs `partition`, the column and range to swap"
        findings.error("MISSING_KEY", task.place("mode"), message)
    if sink.mode != "replace_partition" and sink.partition is not None:
        message = "only mode replace_partition uses it"
        findings.warning("UNUSED_KEY", task.node.key_node("partition"), message)
    if sink.path is not None or sink.output is not None or sink.discard:
        for key in ("schema_drift", "missing_columns"):
            if task.node.get(key) is not None:
                message = "a file has the columns of its rows: only a table can have others"
                findings.warning("UNUSED_KEY", task.node.key_node(key), message)
    if sink.keys and (twice := duplicate(sink.keys)):
        findings.error("DUPLICATE_COLUMN", task.place("keys"), f"the column {twice!r} is listed twice")


def _output(task: TaskDraft, sink: Sink, findings: Findings) -> None:
    if sink.format is not None:
        _conflict(task, "format", "output", findings)
    if sink.mode in ("merge", "replace_partition"):
        message = "an output is one file with all rows of the run; leave `mode` out"
        findings.error("CONFLICTING_KEYS", task.place("mode"), message)


def _transformation(task: TaskDraft, findings: Findings) -> None:
    element = task.element
    if isinstance(element, SqlTransform) and element.sql is None:
        findings.warning("INCOMPLETE", task.node, "the SQL is not written yet", key="sql")
    elif isinstance(element, Filter) and element.condition is None:
        findings.warning("INCOMPLETE", task.node, "the condition is not written yet", key="condition")
    elif isinstance(element, Select | LookupJoin):
        if isinstance(element, LookupJoin) and not element.on:
            findings.error("INVALID_VALUE", task.place("on"), "must not be empty")
        if element.columns is not None and not element.columns:
            findings.error("INVALID_VALUE", task.place("columns"), "must not be empty")
        if element.columns and (twice := duplicate(element.columns)):
            findings.error("DUPLICATE_COLUMN", task.place("columns"), f"the column {twice!r} is listed twice")


def _check(task: TaskDraft, findings: Findings) -> None:
    element = task.element
    if isinstance(element, Range | RowCount):
        low, high = element.min, element.max
        if low is None and high is None:
            findings.error("MISSING_KEY", task.node, "needs `min`, `max` or both", key="min")
        elif isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            findings.error("INVALID_VALUE", task.place("min"), "is above `max`")
    elif isinstance(element, Referential) and len(element.to_columns or element.columns) != len(
        element.columns
    ):
        findings.error("INVALID_VALUE", task.place("to_columns"), "needs as many columns as `columns`")
