"""Types of the source system that survive a transformation.

Some types have no exact counterpart in the scratch: their values travel as text, exact, and the column's
native type says what they are. A transformation that hands a column on as it is must hand that on, too, or a
numeric of a hundred digits would land as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace_connectors.api import Column
from headrace_definition.model import Cast, Deduplicate, Filter, LookupJoin, Rename, Select, Transformation
from headrace_definition.plan import TransformTask

Known = Mapping[str, Column]


def carry_native_types(
    task: TransformTask, inputs: Mapping[str, Sequence[Column]], result: Sequence[Column]
) -> list[Column]:
    """The result's columns, with the native types of those that the transformation only hands on."""
    origin = _origins(task.config, {key: {c.name: c for c in columns} for key, columns in inputs.items()})
    carried = []
    for column in result:
        known = origin.get(column.name)
        same = known is not None and known.native and known.type == column.type
        carried.append(
            Column(column.name, column.type, column.nullable, known.native, known.system)
            if same and known is not None
            else column
        )
    return carried


def _origins(config: Transformation, inputs: Mapping[str, Known]) -> dict[str, Column]:
    """The input column that each column of the result is, unchanged, by the result's name."""
    if isinstance(config, Filter | Deduplicate):
        return dict(_input(config.input, inputs))
    if isinstance(config, Select):
        return dict(_input(config.input, inputs)) if not isinstance(config.columns, dict) else {}
    if isinstance(config, Rename):
        return {config.columns.get(name, name): c for name, c in _input(config.input, inputs).items()}
    if isinstance(config, Cast):
        return {n: c for n, c in _input(config.input, inputs).items() if n not in config.columns}
    if isinstance(config, LookupJoin):
        columns = dict(_looked_up(config, inputs.get(config.lookup, {})))
        return columns | dict(_input(config.input, inputs))
    return {}


def _looked_up(config: LookupJoin, lookup: Known) -> Known:
    if isinstance(config.columns, dict):
        return {new: lookup[old] for new, old in config.columns.items() if old in lookup}
    return {
        name: column for name, column in lookup.items() if config.columns is None or name in config.columns
    }


def _input(key: str | None, inputs: Mapping[str, Known]) -> Known:
    return inputs.get(key, {}) if key is not None else {}
