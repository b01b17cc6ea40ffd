"""TemplateService."""

from headrace.metadata.v1 import pipelines_pb2, templates_pb2_grpc
from headrace.metadata.v1 import templates_pb2 as pb
from headrace_chassis.errors import InvalidDefinition, InvalidRequest
from headrace_chassis.identity import current_principal
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application.pipelines import PipelineWriter
from headrace_metadata.application.templates import TemplateCatalogue, in_words_of_the_request, render
from headrace_metadata.convert import templates as convert
from headrace_metadata.convert.pipelines import pipeline_message
from headrace_metadata.domain.templates import Template
from headrace_metadata.servicers import Context


class TemplateServicer(templates_pb2_grpc.TemplateServiceServicer):
    """Serves the catalogue."""

    def __init__(
        self, catalogue: TemplateCatalogue, writes: Writes, writer: PipelineWriter, cursors: Cursors
    ) -> None:
        self._catalogue = catalogue
        self._writes = writes
        self._writer = writer
        self._pages = Pages[Template](cursors, "templates", (str,), lambda template: (template.id,))

    async def ListTemplates(
        self, request: pb.ListTemplatesRequest, context: Context
    ) -> pb.ListTemplatesResponse:
        limit, after = self._pages.begin(request)
        listed = self._catalogue.listed(request.industry, request.compliance, request.search)
        following = [each for each in listed if after is None or each.id > str(after[0])]
        items, meta = self._pages.end(following, limit, len(listed) if request.include_total else None)
        data = [convert.template_message(each, with_definition=False) for each in items]
        return pb.ListTemplatesResponse(data=data, meta=meta)

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: Context) -> pb.Template:
        template = self._catalogue.get(request.industry, request.name)
        return convert.template_message(template, with_definition=True)

    async def CreatePipelineFromTemplate(
        self, request: pb.CreatePipelineFromTemplateRequest, context: Context
    ) -> pipelines_pb2.Pipeline:
        principal = current_principal()
        template = self._catalogue.get(request.industry, request.name)
        rendered = render(template, request.parameters, request.customizations)
        new = convert.new_pipeline(request, template, rendered.text)
        try:
            checked = await self._writer.check_new(principal, new)
        except (InvalidDefinition, InvalidRequest) as refused:
            raise in_words_of_the_request(refused, rendered) from None

        async def apply(conn: AsyncConnection) -> pipelines_pb2.Pipeline:
            written = await self._writer.create(conn, principal, new, checked)
            return pipeline_message(written.pipeline, warnings=written.warnings)

        return await self._writes.keyed(pipelines_pb2.Pipeline, apply)
