"""What the rows of a load look like, told with its receipt for those who show where data comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace_connectors.api import Column

MAX_COLUMNS = 1000
"""The most columns that are told of one load, those of its sources among them."""


@dataclass(frozen=True)
class LoadShape:
    """The columns of the rows that a load stages, and those of the sources that they are computed from."""

    columns: Sequence[Column]
    sources: Mapping[str, Sequence[Column]]

    def tell(self, receipt: workers_pb2.Receipt) -> None:
        """Writes it into a receipt, unless it is too much to tell."""
        total = len(self.columns) + sum(len(columns) for columns in self.sources.values())
        if total > MAX_COLUMNS:
            return
        receipt.columns.extend(map(_message, self.columns))
        for task, columns in self.sources.items():
            receipt.sources.add(task=task, columns=map(_message, columns))


def exact(found: Sequence[Column], known: Sequence[Column]) -> list[Column]:
    """Columns as the scratch has them, with the native types that are known of those of the same name and
    type."""
    by_name = {column.name: column for column in known}
    return [
        named if (named := by_name.get(column.name)) is not None and named.type == column.type else column
        for column in found
    ]


def _message(column: Column) -> runs_pb2.OutputColumn:
    return runs_pb2.OutputColumn(name=column.name, type=column.native or column.type)
