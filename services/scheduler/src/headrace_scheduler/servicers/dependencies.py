"""DependencyService."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from headrace.metadata.v1 import pipelines_pb2
from headrace.scheduler.v1 import dependencies_pb2 as pb
from headrace.scheduler.v1 import dependencies_pb2_grpc
from headrace_chassis.database import Database
from headrace_chassis.identity import current_principal
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_scheduler.application.dependencies import DependencyWriter, demand_two
from headrace_scheduler.application.metadata import Metadata
from headrace_scheduler.domain.dependencies import Dependency, DependencyType
from headrace_scheduler.servicers import Context
from headrace_scheduler.store import dependencies as store
from headrace_scheduler.store import held_ticks
from headrace_scheduler.store.dependencies import Edge
from headrace_scheduler.store.held_ticks import Waiting

MOST_EDGES = 200
"""How many edges a graph shows in each direction."""

_DEFAULT_DEPTH = 20
_HELD_SHOWN = 10
_TYPES = {
    pb.DEPENDENCY_TYPE_UNSPECIFIED: DependencyType.STRONG,
    pb.DEPENDENCY_TYPE_STRONG: DependencyType.STRONG,
    pb.DEPENDENCY_TYPE_WEAK: DependencyType.WEAK,
}


class DependencyServicer(dependencies_pb2_grpc.DependencyServiceServicer):
    """Serves dependencies. `changed` is called after a write, since held ticks may go."""

    def __init__(
        self,
        *,
        db: Database,
        writes: Writes,
        writer: DependencyWriter,
        metadata: Metadata,
        changed: Callable[[], None],
    ) -> None:
        self._db = db
        self._writes = writes
        self._writer = writer
        self._metadata = metadata
        self._changed = changed

    async def AddDependency(self, request: pb.AddDependencyRequest, context: Context) -> pb.Dependency:
        principal = current_principal()
        above, below = UUID(request.upstream_pipeline_id), UUID(request.downstream_pipeline_id)
        demand_two(above, below)
        upstream, downstream = await asyncio.gather(
            self._metadata.pipeline(principal, above), self._metadata.pipeline(principal, below)
        )

        async def apply(conn: AsyncConnection) -> pb.Dependency:
            return _message(
                await self._writer.add(conn, principal, upstream, downstream, _TYPES[request.type])
            )

        return await self._writes.keyed(pb.Dependency, apply)

    async def RemoveDependency(
        self, request: pb.RemoveDependencyRequest, context: Context
    ) -> pb.RemoveDependencyResponse:
        principal = current_principal()

        async def apply(conn: AsyncConnection) -> None:
            await self._writer.remove(conn, principal, UUID(request.id))

        await self._writes.plain(apply)
        self._changed()
        return pb.RemoveDependencyResponse()

    async def GetDependencyGraph(
        self, request: pb.GetDependencyGraphRequest, context: Context
    ) -> pb.DependencyGraph:
        principal = current_principal()
        centre = (await self._metadata.pipeline(principal, UUID(request.pipeline_id))).pipeline
        depth = request.depth if request.HasField("depth") else _DEFAULT_DEPTH
        async with self._db.read() as conn:
            above = await store.graph(conn, centre.id, depth, MOST_EDGES + 1, up=True)
            below = await store.graph(conn, centre.id, depth, MOST_EDGES + 1, up=False)
            shown = [*above[:MOST_EDGES], *below[:MOST_EDGES]]
            ids = {centre.id, *_ends(shown)}
            held = await held_ticks.waiting(conn, ids, _HELD_SHOWN)
        pipelines = await self._metadata.look(principal, ids)
        return pb.DependencyGraph(
            pipeline_id=str(centre.id),
            upstream=map(_edge, above[:MOST_EDGES]),
            downstream=map(_edge, below[:MOST_EDGES]),
            pipelines=[_node(pipeline, held) for pipeline in pipelines],
            truncated=max(len(above), len(below)) > MOST_EDGES,
        )


def _ends(edges: Iterable[Edge]) -> set[UUID]:
    return {end for edge in edges for end in (edge.dependency.upstream, edge.dependency.downstream)}


def _message(dependency: Dependency) -> pb.Dependency:
    message = pb.Dependency(
        id=str(dependency.id),
        upstream_pipeline_id=str(dependency.upstream),
        downstream_pipeline_id=str(dependency.downstream),
        type=_type(dependency),
        workspace_id=str(dependency.workspace_id),
        created_by=dependency.created_by,
    )
    message.created_at.FromDatetime(dependency.created_at)
    return message


def _edge(edge: Edge) -> pb.DependencyEdge:
    return pb.DependencyEdge(
        id=str(edge.dependency.id),
        upstream_pipeline_id=str(edge.dependency.upstream),
        downstream_pipeline_id=str(edge.dependency.downstream),
        type=_type(edge.dependency),
        depth=edge.depth,
    )


def _node(pipeline: pipelines_pb2.Pipeline, held: Sequence[Waiting]) -> pb.DependencyNode:
    return pb.DependencyNode(
        pipeline_id=pipeline.id,
        name=pipeline.name,
        status=pipeline.status,
        is_active=pipeline.is_active,
        held=[_held(each) for each in held if str(each.pipeline_id) == pipeline.id],
    )


def _held(waiting: Waiting) -> pb.HeldTick:
    message = pb.HeldTick(
        schedule_id=str(waiting.schedule_id),
        waits_for=str(waiting.waits_for) if waiting.waits_for else None,
        message=waiting.message,
    )
    message.at.FromDatetime(waiting.at)
    return message


def _type(dependency: Dependency) -> "pb.DependencyType.ValueType":
    return pb.DependencyType.Value(f"DEPENDENCY_TYPE_{dependency.type}")
