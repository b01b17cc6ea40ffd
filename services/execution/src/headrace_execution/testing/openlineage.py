"""Holds events to OpenLineage's own model: the classes that its project generates from the published schemas
(https://openlineage.io/spec/2-0-2/OpenLineage.json and those of the facets) and releases as
openlineage-python.
"""

import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

import attr
from openlineage.client import event_v2
from openlineage.client.generated import (
    column_lineage_dataset,
    data_quality_assertions_dataset,
    datasource_dataset,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    sql_job,
    tags_run,
)

FACETS: Mapping[str, type] = {
    "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet,
    "dataQualityAssertions": data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet,
    "dataSource": datasource_dataset.DatasourceDatasetFacet,
    "errorMessage": error_message_run.ErrorMessageRunFacet,
    "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "jobType": job_type_job.JobTypeJobFacet,
    "nominalTime": nominal_time_run.NominalTimeRunFacet,
    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    "parent": parent_run.ParentRunFacet,
    "processing_engine": processing_engine_run.ProcessingEngineRunFacet,
    "schema": schema_dataset.SchemaDatasetFacet,
    "sql": sql_job.SQLJobFacet,
    "tags": tags_run.TagsRunFacet,
}
_CONTAINERS = ("facets", "inputFacets", "outputFacets")


class Invalid(AssertionError):  # noqa: N818 - it names what is the case
    """An event is not as the specification has it; the message says where."""


def demand_valid(event: object) -> None:
    """Demands that a JSON value is a run event of the specification, with known facets and nothing besides.

    Raises:
        Invalid: naming the first place that is not.
    """
    _object(event_v2.RunEvent, event, "event")


def _object(kind: type, value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise Invalid(f"{where}: an object is expected, not {value!r}")
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in attr.fields(kind)}
    if unknown := value.keys() - known.keys():
        raise Invalid(f"{where}: {sorted(unknown)} are not of {kind.__name__}")
    for name, field in known.items():
        place = f"{where}.{name}"
        if name not in value:
            if field.default is attr.NOTHING:
                raise Invalid(f"{place} is missing")
            if name in ("_producer", "_schemaURL", "producer", "schemaURL"):
                raise Invalid(f"{place} is missing: the specification demands it")
            continue
        if name in _CONTAINERS:
            _facets(value[name], place)
        else:
            _value(hints[name], value[name], place)
        _formats(field, value[name], place)
    url = value.get("_schemaURL", value.get("schemaURL"))
    if url is not None and url != _schema_of(kind):
        raise Invalid(f"{where}: {url} is not the schema of {kind.__name__}")


def _schema_of(kind: type) -> str:
    """The address of the schema that a class was generated from, as each of them tells it."""
    told: str = kind._get_schema()  # type: ignore[attr-defined] # noqa: SLF001
    return told


def _facets(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise Invalid(f"{where}: an object is expected, not {value!r}")
    for key, facet in value.items():
        if key not in FACETS:
            raise Invalid(f"{where}.{key}: there is no such facet")
        _object(FACETS[key], facet, f"{where}.{key}")


def _value(hint: Any, value: object, where: str) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (only,) = (each for each in arguments if each is not type(None))
        _value(only, value, where)
    elif origin is list:
        if not isinstance(value, list):
            raise Invalid(f"{where}: a list is expected, not {value!r}")
        for index, each in enumerate(value):
            _value(arguments[0], each, f"{where}[{index}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise Invalid(f"{where}: an object is expected, not {value!r}")
        for key, each in value.items():
            _value(arguments[1], each, f"{where}.{key}")
    elif attr.has(hint):
        _object(hint, value, where)
    elif isinstance(hint, type) and issubclass(hint, Enum):
        if value not in {each.value for each in hint}:
            raise Invalid(f"{where}: {value!r} is none of {hint.__name__}")
    elif type(value) is not hint:
        raise Invalid(f"{where}: {hint.__name__} is expected, not {value!r}")


def _formats(field: "attr.Attribute[Any]", value: object, where: str) -> None:
    """What the schema says of formats stands in validators of the generated classes."""
    if field.validator is not None:
        try:
            field.validator(None, field, value)
        except (ValueError, AttributeError) as error:
            raise Invalid(f"{where}: {value!r}: {error}") from error
