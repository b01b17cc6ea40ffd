"""LineageService."""

from uuid import UUID

from headrace.metadata.v1 import lineage_pb2 as pb
from headrace.metadata.v1 import lineage_pb2_grpc
from headrace_chassis.identity import current_principal

from headrace_metadata.application.lineage import LineageReader
from headrace_metadata.convert.lineage import lineage_message
from headrace_metadata.servicers import Context


class LineageServicer(lineage_pb2_grpc.LineageServiceServicer):
    """Serves the lineage of pipelines."""

    def __init__(self, reader: LineageReader) -> None:
        self._reader = reader

    async def GetPipelineLineage(
        self, request: pb.GetPipelineLineageRequest, context: Context
    ) -> pb.PipelineLineage:
        version = request.version if request.HasField("version") else None
        return lineage_message(await self._reader.read(current_principal(), UUID(request.id), version))
