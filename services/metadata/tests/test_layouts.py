"""How editors draw pipelines, the ids by which callers know them, and definitions as nodes and edges."""

import json
from typing import Any
from uuid import UUID

import pytest
from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import pipelines_pb2 as pb
from headrace_metadata.domain.layouts import MAX_NODES, layout_problems

from .support import NOOP, Service, failure

LAYOUT = b'{"nodes": [{"id": "noop", "label": "Nothing", "position": {"x": 1.50, "y": -2}}], "zoom": 3}'
CONNECTOR, SCHEMA = str(UUID(int=1)), str(UUID(int=2))


async def _get(service: Service, pipeline_id: str, view: Any = None) -> pb.Pipeline:
    request = pb.GetPipelineRequest(id=pipeline_id, view=view)
    found: pb.Pipeline = await service.pipelines.GetPipeline(request, metadata=service.user("viewer"))
    return found


async def _update(service: Service, pipeline_id: str, **fields: Any) -> pb.Pipeline:
    request = pb.UpdatePipelineRequest(id=pipeline_id, **fields)
    updated: pb.Pipeline = await service.pipelines.UpdatePipeline(request, metadata=service.user())
    return updated


def _shown(message: pb.Pipeline | pb.PipelineVersion) -> tuple[bytes, str, str]:
    return message.layout, message.connector_id, message.schema_id


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("{}", []),
        ('{"nodes": [{"id": 1}], "edges": [{}], "zoom": null}', []),
        ("[]", ["INVALID_TYPE"]),
        ('{"nodes": {}, "edges": [{}, 1]}', ["INVALID_TYPE", "INVALID_TYPE"]),
        (json.dumps({"nodes": [{}] * (MAX_NODES + 1)}), ["TOO_LONG"]),
        ('{"nodes": NaN}', ["INVALID_FORMAT"]),
        ('{"zoom": ' + "[" * 2000 + "]" * 2000 + "}", ["INVALID_FORMAT"]),
        (r'{"zoom": "\ud800"}', ["INVALID_FORMAT"]),
        (b'{"zoom": "\xff"}'.decode(errors="surrogateescape"), ["INVALID_FORMAT"]),
    ],
)
def test_a_layout_is_judged_by_its_shape(text: str, codes: list[str]) -> None:
    assert [problem.code for problem in layout_problems(text)] == codes


async def test_a_layout_is_part_of_the_version_and_comes_back_as_it_was_given(service: Service) -> None:
    created = await service.create(layout=LAYOUT, connector_id=CONNECTOR, schema_id=SCHEMA)
    assert _shown(created) == (LAYOUT, CONNECTOR, SCHEMA)
    same = await _update(service, created.id, layout=LAYOUT, connector_id=CONNECTOR)
    assert same.version == 1
    moved = await _update(service, created.id, layout=b'{"nodes":[]}')
    assert (moved.version, *_shown(moved)) == (2, b'{"nodes":[]}', CONNECTOR, SCHEMA)
    cleared = await _update(service, created.id, cleared_fields=["layout", "connectorId", "schemaId"])
    assert (cleared.version, *_shown(cleared)) == (3, b"", "", "")
    first = await service.pipelines.GetPipelineVersion(
        pb.GetPipelineVersionRequest(id=created.id, version=1), metadata=service.user()
    )
    assert _shown(first) == (LAYOUT, CONNECTOR, SCHEMA)


async def test_a_copy_is_drawn_alike_and_lists_leave_layouts_out(service: Service) -> None:
    created = await service.create(layout=LAYOUT, connector_id=CONNECTOR, schema_id=SCHEMA)
    copy = await service.pipelines.DuplicatePipeline(
        pb.DuplicatePipelineRequest(id=created.id), metadata=service.user()
    )
    assert _shown(copy) == (LAYOUT, CONNECTOR, SCHEMA)
    listed = await service.pipelines.ListPipelines(pb.ListPipelinesRequest(), metadata=service.user())
    versions = await service.pipelines.ListPipelineVersions(
        pb.ListPipelineVersionsRequest(id=created.id), metadata=service.user()
    )
    assert [_shown(each) for each in (*listed.data, *versions.data)] == [(b"", CONNECTOR, SCHEMA)] * 3


async def test_a_layout_of_another_shape_is_refused_and_nothing_is_stored(service: Service) -> None:
    request = pb.CreatePipelineRequest(name="p", yaml_definition=NOOP, layout=b'{"edges": 1}')
    error = await failure(service.pipelines.CreatePipeline(request, metadata=service.user()))
    assert error.reason == reasons_pb2.REASON_INVALID_REQUEST
    assert [(problem.path, problem.code) for problem in error.problems] == [("layout.edges", "INVALID_TYPE")]
    listed = await service.pipelines.ListPipelines(pb.ListPipelinesRequest(), metadata=service.user())
    assert not listed.data


async def test_any_version_is_shown_as_nodes_and_edges_where_its_layout_puts_them(service: Service) -> None:
    created = await service.create(layout=LAYOUT)
    await _update(service, created.id, yaml_definition=NOOP.replace("noop", "other"))
    assert not (await _get(service, created.id)).HasField("graph")
    latest = (await _get(service, created.id, pb.PIPELINE_VIEW_GRAPH)).graph
    assert [(node.id, node.label, node.position) for node in latest.nodes] == [
        ("other", "", b""),
        ("discard", "", b""),
    ]
    first = await service.pipelines.GetPipelineVersion(
        pb.GetPipelineVersionRequest(id=created.id, version=1, view=pb.PIPELINE_VIEW_GRAPH),
        metadata=service.user("viewer"),
    )
    (source, sink), (edge,) = first.graph.nodes, first.graph.edges
    assert (source.id, source.node_type, source.label) == ("noop", "source", "Nothing")
    assert json.loads(source.config) == {"values": [{"x": 1}]}
    assert json.loads(source.position) == {"x": 1.5, "y": -2}
    assert (sink.node_type, edge.source, edge.target) == ("target", "noop", sink.id)
    assert json.loads(first.graph.settings) == {"version": 1}


async def test_a_number_that_json_has_no_form_for_is_told(service: Service) -> None:
    created = await service.create(text=NOOP.replace("x: 1", "x: .inf"))
    request = pb.GetPipelineRequest(id=created.id, view=pb.PIPELINE_VIEW_GRAPH)
    error = await failure(service.pipelines.GetPipeline(request, metadata=service.user()))
    assert [problem.path for problem in error.problems] == ["view"]
