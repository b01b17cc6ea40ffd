"""The facets of OpenLineage that Headrace fills, each under the version of its published schema.

Pure: JSON objects as dictionaries, in the names of the specification.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]

VERSION: Final = metadata.version("headrace-execution")
PRODUCER: Final = f"https://headrace.io/execution/{VERSION}"
EVENT_SCHEMA: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"

_FACETS: Final = "https://openlineage.io/spec/facets"


def instant(moment: datetime) -> str:
    """An instant in RFC 3339, UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def schema(columns: Iterable[tuple[str, str | None]]) -> Json:
    """The columns of a dataset, in order; the type is left out where it is not known."""
    fields = [{"name": name, **({"type": kind} if kind else {})} for name, kind in columns]
    return _facet("SchemaDatasetFacet", "1-2-0", fields=fields)


def data_source(name: str, uri: str | None) -> Json:
    """The system that holds a dataset, as users call it."""
    return _facet("DatasourceDatasetFacet", "1-0-1", name=name, **({"uri": uri} if uri else {}))


def column_lineage(fields: Mapping[str, Sequence[tuple[str, str, str]]]) -> Json:
    """For each column of an output the inputs that it is computed from: namespace, name and column."""
    return _facet(
        "ColumnLineageDatasetFacet",
        "1-2-0",
        fields={
            column: {
                "inputFields": [
                    {"namespace": namespace, "name": name, "field": field}
                    for namespace, name, field in origins
                ]
            }
            for column, origins in fields.items()
        },
    )


def output_statistics(rows: int, size: int | None) -> Json:
    """What was written; the size in bytes is left out where it is not known."""
    return _facet("OutputStatisticsOutputDatasetFacet", "1-0-2", rowCount=rows, **_size(size))


def input_statistics(rows: int, size: int | None) -> Json:
    """What was read."""
    return _facet("InputStatisticsInputDatasetFacet", "1-0-0", rowCount=rows, **_size(size))


def assertion(name: str, kind: str, *, success: bool, severity: str, column: str | None) -> Json:
    """What a check of a dataset came to."""
    told = {"assertion": kind, "success": success, "severity": severity, "name": name}
    return told if column is None else {**told, "column": column}


def assertions(listed: Sequence[Json]) -> Json:
    """What the checks of a dataset came to."""
    return _facet("DataQualityAssertionsDatasetFacet", "1-1-0", assertions=list(listed))


def sql(query: str) -> Json:
    """The SQL of a job."""
    return _facet("SQLJobFacet", "1-1-0", query=query)


def job_type() -> Json:
    """What kind of job a pipeline is."""
    return _facet(
        "JobTypeJobFacet", "2-0-4", processingType="BATCH", integration="HEADRACE", jobType="PIPELINE"
    )


def processing_engine() -> Json:
    """What runs jobs."""
    return _facet("ProcessingEngineRunFacet", "1-1-1", name="Headrace", version=VERSION)


def nominal_time(start: datetime, end: datetime | None) -> Json:
    """The interval, or the instant, that a run is for."""
    return _facet(
        "NominalTimeRunFacet",
        "1-0-1",
        nominalStartTime=instant(start),
        **({"nominalEndTime": instant(end)} if end is not None else {}),
    )


def parent(run: str, namespace: str, name: str) -> Json:
    """The run that a run is a part of, and its job."""
    return _facet("ParentRunFacet", "1-2-0", run={"runId": run}, job={"namespace": namespace, "name": name})


def error_message(message: str) -> Json:
    """Why a run failed."""
    return _facet("ErrorMessageRunFacet", "1-0-1", message=message, programmingLanguage="PYTHON")


def tags(values: Mapping[str, str]) -> Json:
    """Further facts about a run."""
    listed = [{"key": key, "value": value, "source": "HEADRACE"} for key, value in values.items()]
    return _facet("TagsRunFacet", "1-0-0", tags=listed)


def _size(size: int | None) -> Json:
    return {} if size is None else {"size": size}


def _facet(kind: str, edition: str, /, **values: Any) -> Json:
    url = f"{_FACETS}/{edition}/{kind}.json#/$defs/{kind}"
    return {"_producer": PRODUCER, "_schemaURL": url, **values}
