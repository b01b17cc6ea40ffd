"""PipelineService."""

from datetime import datetime
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from headrace.metadata.v1 import pipelines_pb2 as pb
from headrace.metadata.v1 import pipelines_pb2_grpc
from headrace_chassis.database import Database
from headrace_chassis.errors import InvalidCursor, NotFound
from headrace_chassis.identity import Principal, current_principal
from headrace_chassis.messages import optional_id
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application import workspaces
from headrace_metadata.application.definitions import Text
from headrace_metadata.application.deletion import PipelineDeletion
from headrace_metadata.application.graphs import GraphReader, GraphText
from headrace_metadata.application.pipelines import ContentMoved, NewPipeline, PipelineWriter, Written
from headrace_metadata.application.validation import PipelineValidator
from headrace_metadata.convert import pipelines as convert
from headrace_metadata.domain.names import normalise_name
from headrace_metadata.domain.pipelines import Change, Pipeline, Version
from headrace_metadata.servicers import Context
from headrace_metadata.store import pipelines as store
from headrace_metadata.store.searching import reading


class PipelineServicer(pipelines_pb2_grpc.PipelineServiceServicer):
    """Serves pipelines."""

    def __init__(
        self,
        db: Database,
        writes: Writes,
        writer: PipelineWriter,
        validator: PipelineValidator,
        deletion: PipelineDeletion,
        graphs: GraphReader,
        cursors: Cursors,
    ) -> None:
        self._db = db
        self._writes = writes
        self._writer = writer
        self._validator = validator
        self._deletion = deletion
        self._graphs = graphs
        self._pages = Pages[Pipeline](
            cursors, "pipelines", (datetime, UUID), lambda pipeline: (pipeline.created_at, pipeline.id)
        )
        self._version_pages = Pages[Version](
            cursors, "versions", (UUID, int), lambda version: (version.pipeline_id, version.number)
        )

    async def ListPipelines(
        self, request: pb.ListPipelinesRequest, context: Context
    ) -> pb.ListPipelinesResponse:
        principal = current_principal()
        limit, after = self._pages.begin(request, request.offset)
        place = store.Place(*after) if after else None  # type: ignore[arg-type]
        filters = store.Filters(
            search=normalise_name(request.search),
            name=normalise_name(request.name),
            tags=tuple(request.tags),
            status=convert.status_word(request.status),
        )
        async with reading(self._db, filters.search) as conn:
            scope = await workspaces.listed(conn, principal, optional_id(request.workspace_id))
            found = await store.page(conn, scope, filters, place, request.offset, limit + 1)
            total = await store.count(conn, scope, filters) if request.include_total else None
        items, meta = self._pages.end(found, limit, total)
        data = [convert.pipeline_message(pipeline, with_text=False) for pipeline in items]
        return pb.ListPipelinesResponse(data=data, meta=meta)

    async def CreatePipeline(self, request: pb.CreatePipelineRequest, context: Context) -> pb.Pipeline:
        principal = current_principal()
        new = NewPipeline(
            workspace_id=optional_id(request.workspace_id),
            name=normalise_name(request.name),
            text=request.yaml_definition,
            given=convert.given_of_new(request),
            label=request.created_by if request.HasField("created_by") else None,
        )
        checked = await self._writer.check_new(principal, new)

        async def apply(conn: AsyncConnection) -> pb.Pipeline:
            return _message(await self._writer.create(conn, principal, new, checked))

        return await self._writes.keyed(pb.Pipeline, apply)

    async def ValidatePipeline(
        self, request: pb.ValidatePipelineRequest, context: Context
    ) -> pb.ValidatePipelineResponse:
        text = Text(
            request.yaml_definition,
            optional_id(request.source_connection_id),
            optional_id(request.target_connection_id),
        )
        verdict = await self._validator.validate(
            current_principal(),
            text,
            optional_id(request.workspace_id),
            request.schedule_cron if request.HasField("schedule_cron") else None,
        )
        return convert.verdict_message(verdict)

    async def GetPipeline(self, request: pb.GetPipelineRequest, context: Context) -> pb.Pipeline:
        pipeline = await self._get(current_principal(), UUID(request.id))
        graph = await self._graph(request.view, pipeline, pipeline.latest)
        return convert.pipeline_message(pipeline, graph=graph)

    async def UpdatePipeline(self, request: pb.UpdatePipelineRequest, context: Context) -> pb.Pipeline:
        principal = current_principal()
        change = convert.pipeline_change(request)
        expected = request.expected_version if request.HasField("expected_version") else None
        # Each round that fails means that another change has succeeded; the deadline ends it.
        while True:
            try:
                return _message(await self._update(principal, UUID(request.id), change, expected))
            except ContentMoved:
                continue

    async def _update(
        self, principal: Principal, pipeline_id: UUID, change: Change, expected: int | None
    ) -> Written:
        checked = await self._writer.check_change(principal, pipeline_id, change, expected)
        return await self._writes.plain(
            lambda conn: self._writer.update(conn, principal, pipeline_id, change, checked, expected)
        )

    async def DeletePipeline(self, request: pb.DeletePipelineRequest, context: Context) -> Empty:
        await self._deletion.delete(
            current_principal(),
            UUID(request.id),
            force=request.force,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
        )
        return Empty()

    async def DuplicatePipeline(self, request: pb.DuplicatePipelineRequest, context: Context) -> pb.Pipeline:
        principal = current_principal()
        name = normalise_name(request.name) if request.HasField("name") else None
        to = UUID(request.workspace_id) if request.HasField("workspace_id") else None

        async def apply(conn: AsyncConnection) -> pb.Pipeline:
            original = await store.get(conn, workspaces.scope_of(principal), UUID(request.id))
            if original is None:
                raise NotFound("pipeline", request.id)
            return _message(await self._writer.duplicate(conn, principal, original, name, to))

        return await self._writes.keyed(pb.Pipeline, apply)

    async def ListPipelineVersions(
        self, request: pb.ListPipelineVersionsRequest, context: Context
    ) -> pb.ListPipelineVersionsResponse:
        principal = current_principal()
        limit, after = self._version_pages.begin(request)
        pipeline = await self._get(principal, UUID(request.id))
        if after is not None and after[0] != pipeline.id:
            raise InvalidCursor
        before = int(after[1]) if after is not None else None  # type: ignore[arg-type]
        async with self._db.read() as conn:
            found = await store.versions(conn, principal.tenant, pipeline.id, before, limit + 1)
        # Versions are numbered without gaps, so the latest number is how many there are.
        total = pipeline.version if request.include_total else None
        items, meta = self._version_pages.end(found, limit, total)
        data = [convert.version_message(version, with_text=False) for version in items]
        return pb.ListPipelineVersionsResponse(data=data, meta=meta)

    async def GetPipelineVersion(
        self, request: pb.GetPipelineVersionRequest, context: Context
    ) -> pb.PipelineVersion:
        principal = current_principal()
        pipeline = await self._get(principal, UUID(request.id))
        async with self._db.read() as conn:
            version = await store.get_version(conn, principal.tenant, pipeline.id, request.version)
        if version is None:
            raise NotFound("version", f"{request.version} of pipeline {request.id}")
        graph = await self._graph(request.view, pipeline, version)
        return convert.version_message(version, with_text=True, graph=graph)

    async def _graph(
        self, view: "pb.PipelineView.ValueType", pipeline: Pipeline, version: Version
    ) -> GraphText | None:
        if view != pb.PIPELINE_VIEW_GRAPH:
            return None
        return await self._graphs.read(pipeline.workspace_id, version.content)

    async def _get(self, principal: Principal, pipeline_id: UUID) -> Pipeline:
        async with self._db.read() as conn:
            pipeline = await store.get(conn, workspaces.scope_of(principal), pipeline_id)
        if pipeline is None:
            raise NotFound("pipeline", pipeline_id)
        return pipeline


def _message(written: Written) -> pb.Pipeline:
    return convert.pipeline_message(written.pipeline, warnings=written.warnings)
