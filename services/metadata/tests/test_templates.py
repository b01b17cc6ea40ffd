"""Templates: the catalogue, and pipelines made of it. What is wrong is told by the caller's own names."""

import json
from typing import Any

import pytest
from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import pipelines_pb2
from headrace.metadata.v1 import templates_pb2 as pb
from headrace_chassis.errors import HeadraceError
from headrace_definition import compile_definition
from headrace_definition.model import Filter
from headrace_definition.model.sources import Split
from headrace_metadata.application.templates import TemplateCatalogue, render
from headrace_metadata.domain.templates import Template, TemplateMisused, TemplateParameter, fill

from .support import Service, failure

PAYMENTS = {"industry": "fintech", "name": "payment_processing"}
REGISTRY = {"SCHEMA_REGISTRY_URL": "http://schema-registry:8081"}
SHIPPED = TemplateCatalogue.shipped().listed("", "", "")


async def _create(
    service: Service, parameters: Any, customizations: Any = None, *, name: str = "acme", **fields: Any
) -> pipelines_pb2.Pipeline:
    request = pb.CreatePipelineFromTemplateRequest(
        **PAYMENTS,
        pipeline_name=name,
        parameters=json.dumps(parameters).encode(),
        customizations=json.dumps(customizations or {}).encode(),
        **fields,
    )
    created: pipelines_pb2.Pipeline = await service.templates.CreatePipelineFromTemplate(
        request, metadata=service.user()
    )
    return created


async def _refused(
    service: Service, parameters: Any, customizations: Any = None, **fields: Any
) -> HeadraceError:
    return await failure(_create(service, parameters, customizations, **fields))


def _problems(error: HeadraceError) -> list[tuple[str, str]]:
    assert error.reason == reasons_pb2.REASON_INVALID_REQUEST
    return [(problem.path, problem.code) for problem in error.problems]


async def _list(service: Service, **fields: Any) -> pb.ListTemplatesResponse:
    answer: pb.ListTemplatesResponse = await service.templates.ListTemplates(
        pb.ListTemplatesRequest(**fields), metadata=service.user("viewer")
    )
    return answer


def test_four_industries_have_two_templates_each() -> None:
    industries = [template.industry for template in SHIPPED]
    assert {name: industries.count(name) for name in industries} == {
        "fintech": 2,
        "healthcare": 2,
        "retail": 2,
        "telecom": 2,
    }


@pytest.mark.parametrize("template", SHIPPED, ids=lambda template: template.id)
def test_each_template_compiles_with_its_defaults_and_without_warnings(template: Template) -> None:
    required = {
        parameter.name: REGISTRY["SCHEMA_REGISTRY_URL"]
        for parameter in template.parameters
        if parameter.required
    }
    rendered = render(template, json.dumps(required).encode(), b"")
    assert compile_definition(rendered.text).warnings == ()
    assert "${template." not in rendered.text


@pytest.mark.parametrize("template", SHIPPED, ids=lambda template: template.id)
def test_each_default_is_a_value_that_the_template_takes(template: Template) -> None:
    defaults = {each.name: each.default for each in template.parameters if each.default is not None}
    required = {
        parameter.name: REGISTRY["SCHEMA_REGISTRY_URL"]
        for parameter in template.parameters
        if parameter.required
    }
    fill(template, {**defaults, **required}, {})


async def test_lists_are_filtered_and_leave_definitions_out(service: Service) -> None:
    everything = await _list(service, include_total=True)
    assert (len(everything.data), everything.meta.total) == (8, 8)
    assert not any(each.HasField("yaml_definition") for each in everything.data)
    assert [each.id for each in (await _list(service, industry="fintech")).data] == [
        "fintech/account_reconciliation",
        "fintech/payment_processing",
    ]
    assert {each.industry for each in (await _list(service, compliance="hipaa")).data} == {"healthcare"}
    assert [each.id for each in (await _list(service, search="FRAUD")).data] == ["fintech/payment_processing"]
    assert not (await _list(service, industry="farming")).data


async def test_lists_go_on_where_they_ended(service: Service) -> None:
    first = await _list(service, limit=5)
    second = await _list(service, limit=5, cursor=first.meta.next_cursor)
    assert [each.id for each in (*first.data, *second.data)] == [template.id for template in SHIPPED]
    assert not second.meta.next_cursor


async def test_a_template_shows_its_parameters_and_definition(service: Service) -> None:
    found = await service.templates.GetTemplate(pb.GetTemplateRequest(**PAYMENTS), metadata=service.user())
    assert (found.name, list(found.compliance)) == ("Payment Processing Pipeline", ["PCI-DSS", "SOX"])
    parameters = {parameter.name: parameter for parameter in found.parameters}
    assert parameters["SCHEMA_REGISTRY_URL"].required
    limit = parameters["burst_limit"]
    assert (limit.type, limit.default, limit.minimum) == (pb.TEMPLATE_PARAMETER_TYPE_INTEGER, b"3", 1)
    assert "${template.amount_limit}" in found.yaml_definition
    unknown = service.templates.GetTemplate(
        pb.GetTemplateRequest(industry="fintech", name="../x"), metadata=service.user()
    )
    assert (await failure(unknown)).reason == reasons_pb2.REASON_NOT_FOUND


async def test_a_pipeline_gets_the_values_the_tags_and_the_description(service: Service) -> None:
    created = await _create(service, {**REGISTRY, "amount_limit": 250.5, "burst_limit": 7}, tags=["acme"])
    stored = await service.pipelines.GetPipeline(
        pipelines_pb2.GetPipelineRequest(id=created.id), metadata=service.user()
    )
    declared = compile_definition(stored.yaml_definition).plan.parameters
    assert (declared["amount_limit"].default, declared["burst_limit"].default) == (250.5, 7)
    assert declared["SCHEMA_REGISTRY_URL"].default == REGISTRY["SCHEMA_REGISTRY_URL"]
    assert list(stored.tags) == ["fintech", "payments", "fraud", "acme"]
    assert (stored.version, stored.description.startswith("Payment processing")) == (1, True)


async def test_places_are_customized_by_path_and_by_the_words_of_the_template(service: Service) -> None:
    created = await _create(
        service,
        REGISTRY,
        {
            "sources.payment_gateway.partitions": 128,
            "sources.payment_gateway.table": "raw.payments",
            "transformations.suspicious.condition": "risk_score > 10",
            "execution.timeout": "10m",
            "quality_checks.merchants_known": None,
        },
    )
    definition = compile_definition(created.yaml_definition).definition
    gateway = definition.sources[0]
    assert (gateway.split, gateway.table) == (Split(column="payment_id", ranges=128), "raw.payments")
    assert definition.transformations[2] == Filter(
        id="suspicious", type="filter", input="scored", condition="risk_score > 10"
    )
    assert "merchants_known" not in [check.id for check in definition.quality_checks]
    assert created.timeout_seconds == 600


async def test_wrong_parameters_are_all_told_with_their_names(service: Service) -> None:
    wrong = {"burst_limit": 0, "amount_limit": "much", "review_score": 2.5, "amuont_limit": 1}
    error = await _refused(service, wrong)
    assert _problems(error) == [
        ("parameters.amuont_limit", "UNKNOWN_PARAMETER"),
        ("parameters.SCHEMA_REGISTRY_URL", "MISSING_PARAMETER"),
        ("parameters.amount_limit", "PARAMETER_VALUE"),
        ("parameters.burst_limit", "PARAMETER_VALUE"),
        ("parameters.review_score", "PARAMETER_VALUE"),
    ]
    assert error.problems[0].suggestion == "amount_limit"
    assert _problems(await _refused(service, {"SCHEMA_REGISTRY_URL": "ftp://x"})) == [
        ("parameters.SCHEMA_REGISTRY_URL", "PARAMETER_VALUE")
    ]
    assert _problems(await _refused(service, [1], "x")) == [
        ("parameters", "INVALID_TYPE"),
        ("customizations", "INVALID_TYPE"),
    ]


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("source.payment_gateway.table", "x", "UNKNOWN_PATH"),
        ("sources.payment_gatewya.table", "x", "UNKNOWN_PATH"),
        ("sources.payment_gateway.table.name", "x", "UNKNOWN_PATH"),
        ("sources.payment_gateway.query", None, "UNKNOWN_PATH"),
        ("sources.payment_gateway.tabel", "x", "UNKNOWN_KEY"),
        ("sources.payment_gateway.split.rnages", 3, "UNKNOWN_KEY"),
        ("sources.payment_gateway.split.ranges", "many", "WRONG_TYPE"),
        ("sources.payment_gateway.partitions", 1000, "INVALID_VALUE"),
        ("sinks.to_review.mode", "sideways", "INVALID_VALUE"),
        ("transformations.suspicious.condition", "risk_score >=", "SQL_SYNTAX"),
    ],
)
async def test_a_wrong_customization_is_told_by_its_path(
    service: Service, path: str, value: object, code: str
) -> None:
    error = await _refused(service, REGISTRY, {path: value})
    found = _problems(error)
    assert {place for place, _ in found} == {f"customizations.{path}"}
    assert code in {each for _, each in found}
    assert all(problem.line is None for problem in error.problems)


async def test_a_misspelt_task_is_suggested(service: Service) -> None:
    error = await _refused(service, REGISTRY, {"sources.payment_gatewya.table": "x"})
    assert error.problems[0].suggestion == "payment_gateway"


async def test_a_name_that_is_taken_or_none_is_told(service: Service) -> None:
    await _create(service, REGISTRY)
    assert (await _refused(service, REGISTRY)).reason == reasons_pb2.REASON_NAME_TAKEN
    assert _problems(await _refused(service, REGISTRY, name=" acme")) == [("pipelineName", "INVALID_NAME")]


def test_values_never_become_sql_or_keys() -> None:
    template = Template(
        industry="x",
        key="y",
        name="n",
        version="1",
        description="d",
        parameters=(
            TemplateParameter(name="a", description="d"),
            TemplateParameter(name="b", description="d"),
        ),
        definition={"sources": [{"id": "s", "table": "${template.a}", "path": "${template.b}"}]},
    )
    hostile = "x'; DROP TABLE y; --\n  query: SELECT 1"
    filled = fill(template, {"a": hostile}, {})
    assert filled.definition == {"sources": [{"id": "s", "table": hostile}]}


def test_a_template_whose_parameters_do_not_fit_its_definition_is_no_template() -> None:
    def made(text: str) -> Template:
        return Template(
            industry="x",
            key="y",
            name="n",
            version="1",
            description="d",
            parameters=(TemplateParameter(name="a", description="d"),),
            definition={"sources": [{"id": "s", "table": text}]},
        )

    assert made("orders").unused() == {"a"}
    assert made("${template.b}").unused() == {"a", "b"}
    with pytest.raises(ValueError, match="must stand alone"):
        made("public.${template.a}").unused()


def test_too_many_customizations_are_refused() -> None:
    with pytest.raises(TemplateMisused, match="at most 100"):
        fill(SHIPPED[1], REGISTRY, {f"sources.s{number}.table": "x" for number in range(101)})
