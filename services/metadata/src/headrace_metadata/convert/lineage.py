"""The lineage of pipelines."""

from headrace.metadata.v1 import definitions_pb2, lineage_pb2
from headrace_chassis.messages import timestamp
from headrace_definition.datasets import ConnectionPlace, Dataset

from headrace_metadata.application.lineage import PipelineLineage
from headrace_metadata.application.places import DescribedPipeline
from headrace_metadata.convert.pipelines import column_lineage_message, last_run_message


def lineage_message(lineage: PipelineLineage) -> lineage_pb2.PipelineLineage:
    """The lineage of a version."""
    last_run = lineage.pipeline.last_run
    return lineage_pb2.PipelineLineage(
        pipeline_id=str(lineage.pipeline.id),
        version=lineage.version,
        latest_version=lineage.pipeline.version,
        sources=map(_dataset_message, lineage.datasets.sources),
        sinks=map(_dataset_message, lineage.datasets.sinks),
        transformations=[
            lineage_pb2.LineageTransformation(
                name=each.name, type=each.type, inputs=each.inputs, sources=each.sources
            )
            for each in lineage.transformations
        ],
        columns=map(column_lineage_message, lineage.columns),
        columns_truncated=lineage.truncated,
        last_executed=timestamp(last_run.started_at) if last_run is not None else None,
        last_run=last_run_message(last_run),
    )


def _dataset_message(dataset: Dataset) -> lineage_pb2.LineageDataset:
    place = dataset.connection
    return lineage_pb2.LineageDataset(
        task=dataset.task,
        type=lineage_pb2.DatasetType.Value(f"DATASET_TYPE_{dataset.kind}"),
        fqn=dataset.name,
        namespace=dataset.namespace,
        connection=place.name if place is not None else None,
        connection_id=place.id if place is not None else None,
    )


def described_message(pipeline: DescribedPipeline) -> definitions_pb2.DescribedPipeline:
    """How a pipeline is called, and where its connections lead."""
    return definitions_pb2.DescribedPipeline(
        pipeline_id=str(pipeline.id),
        slug=pipeline.slug,
        name=pipeline.name,
        workspace_slug=pipeline.workspace_slug,
        connections=[_place_message(word, place) for word, place in pipeline.places.items()],
    )


def _place_message(word: str, place: ConnectionPlace) -> definitions_pb2.ConnectionPlace:
    return definitions_pb2.ConnectionPlace(
        reference=word,
        id=place.id,
        name=place.name,
        type=place.type,
        host=place.host,
        port=place.port,
        database=place.database,
        path=place.path,
        default_schema=place.default_schema,
    )
