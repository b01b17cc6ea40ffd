"""Lineage: what a pipeline reads, computes and writes, with connections resolved and nothing secret shown."""

from typing import Any

from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import connections_pb2, definitions_pb2, pipelines_pb2
from headrace.metadata.v1 import lineage_pb2 as pb
from headrace_chassis.channels import call_metadata
from headrace_chassis.ids import uuid7
from headrace_metadata.application.lineage import MAX_COLUMNS

from .support import NOOP, Service, failure

SALES = """
sources:
  - {id: raw, connection: sales-db, table: raw_transactions, columns: [id, product, amount]}
  - {id: products, connection: gone, table: products, columns: [id, name]}
transformations:
  - id: clean_transactions
    type: sql_transform
    sql: SELECT id, product, amount * 100 AS cents FROM raw WHERE amount > 0
  - id: enrich_with_products
    type: lookup_join
    input: clean_transactions
    lookup: products
    on: {product: id}
    columns: {product_name: name}
sinks:
  - {id: load, input: enrich_with_products, table: sales.daily_transactions}
"""
CANARY = "canary-of-lineage"


async def _connect(service: Service, name: str, database: str) -> str:
    request = connections_pb2.CreateConnectionRequest(
        name=name,
        type=connections_pb2.CONNECTION_TYPE_POSTGRESQL,
        host=f"{name}.internal",
        database=database,
        username="etl",
        secret=CANARY,
    )
    created = await service.connections.CreateConnection(request, metadata=service.user("admin"))
    return str(created.id)


async def _lineage(service: Service, pipeline: str, **fields: Any) -> pb.PipelineLineage:
    request = pb.GetPipelineLineageRequest(id=pipeline, **fields)
    answer: pb.PipelineLineage = await service.lineage.GetPipelineLineage(
        request, metadata=service.user("viewer")
    )
    return answer


async def test_connections_are_resolved_to_names_and_namespaces_without_secrets(service: Service) -> None:
    source = await _connect(service, "sales-db", "sales_db")
    target = await _connect(service, "analytics-db", "analytics")
    pipeline = await service.create(text=SALES, target_connection_id=target)

    found = await _lineage(service, pipeline.id)

    assert [(each.type, each.fqn, each.namespace, each.connection_id) for each in found.sources] == [
        (
            pb.DATASET_TYPE_TABLE,
            "sales_db.public.raw_transactions",
            "postgres://sales-db.internal:5432",
            source,
        ),
        (pb.DATASET_TYPE_TABLE, "gone.products", "", ""),
    ]
    (sink,) = found.sinks
    assert (sink.task, sink.fqn, sink.connection) == (
        "load",
        "analytics.sales.daily_transactions",
        "analytics-db",
    )
    assert [(each.name, each.type, list(each.sources)) for each in found.transformations] == [
        ("clean_transactions", "sql_transform", ["raw"]),
        ("enrich_with_products", "lookup_join", ["raw", "products"]),
    ]
    assert CANARY not in str(found)


async def test_columns_lead_from_sinks_to_sources(service: Service) -> None:
    pipeline = await service.create(text=SALES)
    found = await _lineage(service, pipeline.id)
    edges = {
        (column.task, column.column): [(origin.task, origin.column) for origin in column.origins]
        for column in found.columns
    }
    assert edges["load", "cents"] == [("raw", "amount")]
    assert edges["load", "product_name"] == [("products", "name")]
    assert not any(task in ("raw", "products") for task, _ in edges)
    assert not found.columns_truncated


async def test_older_versions_keep_their_lineage(service: Service) -> None:
    pipeline = await service.create(text=SALES)
    update = pipelines_pb2.UpdatePipelineRequest(id=pipeline.id, yaml_definition=NOOP)
    await service.pipelines.UpdatePipeline(update, metadata=service.user())
    latest, first = await _lineage(service, pipeline.id), await _lineage(service, pipeline.id, version=1)
    assert (latest.version, [each.type for each in latest.sources]) == (2, [pb.DATASET_TYPE_VALUES])
    assert (first.version, first.latest_version, len(first.sources)) == (1, 2, 2)
    assert not latest.HasField("last_executed")


async def test_the_answer_is_bounded(service: Service) -> None:
    columns = ", ".join(f"c{number}" for number in range(1500))
    steps = "\n".join(
        f"  - {{id: f{n}, type: filter, input: {'raw' if n == 0 else f'f{n - 1}'}, condition: c0 > 0}}"
        for n in range(5)
    )
    text = (
        f"sources:\n  - {{id: raw, connection: x, table: t, columns: [{columns}]}}\n"
        f"transformations:\n{steps}\nsinks: [{{input: f4, discard: true}}]\n"
    )
    found = await _lineage(service, (await service.create(text=text)).id)
    assert (len(found.columns), found.columns_truncated) == (MAX_COLUMNS, True)


async def test_what_does_not_exist_for_the_caller_has_no_lineage(service: Service) -> None:
    pipeline = await service.create()
    foreign = service.lineage.GetPipelineLineage(
        pb.GetPipelineLineageRequest(id=pipeline.id), metadata=service.user(tenant=uuid7())
    )
    unknown = service.lineage.GetPipelineLineage(
        pb.GetPipelineLineageRequest(id=pipeline.id, version=7), metadata=service.user()
    )
    for call in (foreign, unknown):
        assert (await failure(call)).reason == reasons_pb2.REASON_NOT_FOUND


async def test_runs_are_told_of_by_the_names_and_places_that_others_know(service: Service) -> None:
    source = await _connect(service, "sales-db", "sales_db")
    pipeline = await service.create("Daily Sales")
    words = ["sales-db", source, "gone"]
    wanted = definitions_pb2.PipelineConnections(pipeline_id=pipeline.id, connections=words)
    unknown = definitions_pb2.PipelineConnections(pipeline_id=str(uuid7()))
    request = definitions_pb2.BatchDescribePipelinesRequest(pipelines=[wanted, unknown])

    answer = await service.definitions.BatchDescribePipelines(request, metadata=service.service())

    (found,) = answer.pipelines
    assert (found.slug, found.name, found.workspace_slug) == ("daily-sales", "Daily Sales", "default")
    assert {each.reference for each in found.connections} == {"sales-db", source}
    assert {(each.host, each.database, each.HasField("port")) for each in found.connections} == {
        ("sales-db.internal", "sales_db", False)
    }
    assert CANARY not in str(answer)
    assert "etl" not in str(answer)
    stranger = call_metadata(service.authority.service("execution", tenant=uuid7()))
    foreign = await service.definitions.BatchDescribePipelines(request, metadata=stranger)
    assert not foreign.pipelines
