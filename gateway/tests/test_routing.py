"""Path templates, the routes that contracts declare, and how a path finds its route."""

import headrace
import pytest
from headrace.common.v1 import options_pb2
from headrace_gateway.config import GatewaySettings
from headrace_gateway.contract import load_contract, owner
from headrace_gateway.router import RouteConflictError, Router
from headrace_gateway.routes import routes_of
from headrace_gateway.templates import Template, TemplateError, parse_template

CONTRACT = load_contract(headrace.descriptor_set())
EXPOSED = (options_pb2.ROLE_VIEWER, options_pb2.ROLE_EDITOR, options_pb2.ROLE_ADMIN)


def router(*routes: str) -> Router[str]:
    return Router(
        (method, parse_template(path), text) for text in routes for method, path in [text.split(" ")]
    )


def found(table: Router[str], method: str, path: str) -> tuple[str, list[str]] | None:
    match = table.match(path.encode())
    return match.get(method) if match is not None else None


@pytest.mark.parametrize(
    ("path", "target", "values"),
    [
        ("/a/b", "GET /a/b", []),
        ("/a/x", "GET /a/{id}", ["x"]),
        ("/a/x/c", "GET /a/{id}/c", ["x"]),
        ("/a/b/c", "GET /a/{id}/c", ["b"]),
        ("/a/b%2Fc/c", "GET /a/{id}/c", ["b/c"]),
        ("/a/x:run", "GET /a/{id}:run", ["x"]),
        ("/a/x:walk", "GET /a/{id}", ["x:walk"]),
        ("/f/p/q/r", "GET /f/{path=**}", ["p/q/r"]),
        ("/g/x/y/h", "GET /g/{pair=*/*}/h", ["x/y"]),
        ("/a/%C3%A4", "GET /a/{id}", ["ä"]),
        ("/a", None, None),
        ("/a/", None, None),
        ("/a/b/c/d", None, None),
        ("/a/%ff", None, None),
        ("a/b", None, None),
        ("*", None, None),
    ],
)
def test_a_path_finds_its_route(path: str, target: str | None, values: list[str] | None) -> None:
    table = router(
        "GET /a/{id}",
        "GET /a/b",
        "GET /a/{id}/c",
        "GET /a/{id}:run",
        "GET /f/{path=**}",
        "GET /g/{pair=*/*}/h",
    )

    assert found(table, "GET", path) == (None if target is None else (target, values))


def test_methods_of_a_path_are_told() -> None:
    match = router("GET /a/{id}", "PUT /a/{name}").match(b"/a/x")

    assert match is not None
    assert (match.methods(), match.get("POST")) == (["GET", "PUT"], None)


@pytest.mark.parametrize(
    "pair", [("GET /a/{id}", "GET /a/{name}"), ("GET /a/*", "GET /a/{x=*}"), ("GET /a", "GET /a")]
)
def test_routes_that_would_serve_the_same_requests_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(RouteConflictError, match="would serve the same requests"):
        router(*pair)


@pytest.mark.parametrize(
    "text", ["", "/", "a/b", "/a//b", "/{a}/{a}", "/**/a", "/a{b}", "/{a", "/a:", "/{=x}", "/a/{b=}", "/a b"]
)
def test_malformed_templates_are_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_template(text)


def test_a_template_is_filled_with_escaped_values() -> None:
    template: Template = parse_template("/a/{x}/{y=b/**}:go")

    assert template.expand({"x": "1/2 ä", "y": "b/c d"}) == "/a/1%2F2%20%C3%A4/b/c%20d:go"


def test_every_annotated_rpc_has_a_route_and_a_role_of_users() -> None:
    routes = routes_of(CONTRACT)
    annotated = {
        rpc.full_name
        for service in CONTRACT.services
        for rpc in service.methods
        if any("http" in extension.name for extension, _ in rpc.GetOptions().ListFields())
    }

    assert {route.rpc.full_name for route in routes} == annotated
    assert {route.role for route in routes} <= set(EXPOSED)


def test_no_rpc_of_services_or_workers_has_a_path() -> None:
    internal = {
        "BatchGetDefinitions",
        "ResolveConnections",
        "ListEvents",
        "Probe",
        "Connect",
        "ResolveSecrets",
    }
    declared = {rpc.name for service in CONTRACT.services for rpc in service.methods}

    assert internal <= declared
    assert not internal & {route.rpc.name for route in routes_of(CONTRACT)}


def test_every_process_that_serves_a_route_has_a_setting_for_its_address() -> None:
    owners = {owner(route.rpc.containing_service) for route in routes_of(CONTRACT)}

    assert {f"{name}_target" for name in owners} <= GatewaySettings.model_fields.keys()
