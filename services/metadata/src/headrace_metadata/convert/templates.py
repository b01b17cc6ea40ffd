"""Templates."""

import json

from headrace.metadata.v1 import templates_pb2
from headrace_chassis.messages import optional_id
from headrace_definition.rendering import tree_to_yaml

from headrace_metadata.application.pipelines import NewPipeline
from headrace_metadata.domain.names import normalise_name
from headrace_metadata.domain.pipelines import Given, clean_tags
from headrace_metadata.domain.templates import Template, TemplateParameter

_TYPE = "TEMPLATE_PARAMETER_TYPE_"


def template_message(template: Template, *, with_definition: bool) -> templates_pb2.Template:
    """A template."""
    return templates_pb2.Template(
        id=template.id,
        name=template.name,
        industry=template.industry,
        version=template.version,
        description=template.description,
        compliance=template.compliance,
        tags=template.tags,
        parameters=map(_parameter_message, template.parameters),
        yaml_definition=tree_to_yaml(dict(template.definition)) if with_definition else None,
    )


def new_pipeline(
    request: templates_pb2.CreatePipelineFromTemplateRequest, template: Template, text: str
) -> NewPipeline:
    """The pipeline to create of a filled-in template."""
    return NewPipeline(
        workspace_id=optional_id(request.workspace_id),
        name=normalise_name(request.pipeline_name),
        text=text,
        given=Given(
            description=request.description if request.HasField("description") else template.description,
            schedule_cron=request.schedule_cron.strip() if request.HasField("schedule_cron") else None,
            tags=clean_tags([*template.tags, *request.tags]),
        ),
    )


def _parameter_message(parameter: TemplateParameter) -> templates_pb2.TemplateParameter:
    return templates_pb2.TemplateParameter(
        name=parameter.name,
        type=templates_pb2.TemplateParameterType.Value(_TYPE + parameter.type.upper()),
        description=parameter.description,
        required=parameter.required,
        default=b"" if parameter.default is None else json.dumps(parameter.default).encode(),
        allowed_values=b"" if parameter.enum is None else json.dumps(parameter.enum).encode(),
        minimum=parameter.minimum,
        maximum=parameter.maximum,
        pattern=parameter.pattern,
    )
