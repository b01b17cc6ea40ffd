"""A contract that nobody wrote code for is served: routes, parameters, bodies, documentation."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool, message_factory
from headrace_chassis.testing.authority import Authority
from headrace_gateway.config import GatewaySettings
from headrace_gateway.contract import load_contract
from headrace_gateway.wiring import build

from .compiling import compiled
from .conftest import Recorder, serve_parts

pytestmark = pytest.mark.asyncio(loop_scope="session")

PACKAGE = "headrace.synthetic.v1"


@pytest.fixture(scope="session")
def descriptor_set(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The contract, and known to the pool."""
    return compiled("synthetic.proto", PACKAGE, tmp_path_factory.mktemp("synthetic") / "set.binpb")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shelves(descriptor_set: bytes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """A gateway to a server of that contract, which answers with the thing that it was sent."""
    recorder = Recorder()
    service = descriptor_pool.Default().FindServiceByName(f"{PACKAGE}.ShelfService")
    thing_type = message_factory.GetMessageClass(
        descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.Thing")
    )

    def handler(name: str) -> Any:
        request_type = message_factory.GetMessageClass(service.methods_by_name[name].input_type)

        async def answer(request: Any, context: Any) -> Any:
            return await recorder.take(
                request, context, getattr(request, "thing", thing_type(name=f"from {name}"))
            )

        return grpc.unary_unary_rpc_method_handler(
            answer, request_type.FromString, lambda message: message.SerializeToString()
        )

    server = grpc.aio.server()
    handlers = {name: handler(name) for name in ("PutThing", "GetThing", "GetLatest", "DropThing")}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    authority = Authority(tmp_path_factory.mktemp("shelves"))
    settings = GatewaySettings(**authority.auth_values(), http_listen="127.0.0.1:0")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, 0)
        parts = build(settings, {"synthetic": f"127.0.0.1:{port}"}, load_contract(descriptor_set))
        yield await serve_parts(stack, parts, settings, authority, recorder)


async def test_everything_that_a_message_may_hold_comes_back(shelves: Any) -> None:
    thing: dict[str, Any] = {
        "name": "boxes/a b/c",
        "class": "fragile",
        "material": "wood",
        "level": "low",
        "weight": 1,
        "width": 0.5,
        "data": "AAEC",
        "lasts": "-1.500s",
        "made": "2025-12-15T15:30:00.25+01:00",
        "more": {"a": [1, None, {"b": True}], "c": 2.5},
        "value": "x",
        "list": [1, "two"],
        "wrapped": 9007199254740993,
        "counts": {"7": 18446744073709551615},
        "words": {"true": "yes"},
        "inside": {"d": {"name": "d"}},
        "team": "t",
        "mask": "name,inside.material",
        "seen": ["0001-01-01T00:00:00Z"],
        "materials": ["WOOD"],
    }

    answer = await shelves.client.post(
        "/api/v1/shelves/-5/things/7:put?tries=1&tries=2&notBefore=2025-01-01T00:00:00Z&shelf.place=left",
        json=thing,
    )

    assert answer.status_code == 201, answer.text
    sent = shelves.recorder.requests[-1]
    assert (sent.shelf.id, sent.shelf.place, sent.number, list(sent.tries)) == (-5, "left", 7, [1, 2])
    written = answer.json()
    inside = written.pop("inside")["d"]
    assert inside["name"] == "d"
    assert inside["seen"] == []
    del thing["inside"]
    respelt = {"material": "WOOD", "level": "LOW", "lasts": "-1.5s", "made": "2025-12-15T14:30:00.250000Z"}
    assert written == thing | respelt
    assert answer.headers["location"] == "/api/v1/things/boxes/a%20b/c"


async def test_a_variable_may_span_segments(shelves: Any) -> None:
    answer = await shelves.client.put(
        "/api/v1/things/boxes/a%2Fb/c", json={"thing": {"class": "x"}, "number": 3}
    )

    assert answer.status_code == 201, answer.text
    assert shelves.recorder.requests[-1].thing.name == "boxes/a/b/c"


async def test_a_literal_wins_over_a_variable(shelves: Any) -> None:
    latest = await shelves.client.get("/api/v1/things/latest")
    escaped = await shelves.client.get("/api/v1/things/late%2Fst")

    assert latest.json()["name"] == "from GetLatest"
    assert (escaped.json()["name"], shelves.recorder.requests[-1].name) == ("from GetThing", "late/st")


async def test_an_answer_of_204_has_no_content_whatever_the_rpc_returns(shelves: Any) -> None:
    answer = await shelves.client.delete("/api/v1/things/old")

    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


async def test_members_of_a_oneof_exclude_each_other(shelves: Any) -> None:
    answer = await shelves.client.post("/api/v1/shelves/1/things/1:put", json={"person": "a", "team": "b"})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"] == "only one of person, team may be given"


async def test_each_bad_value_has_its_place(shelves: Any) -> None:
    thing = {
        "weight": "1",
        "width": 1e39,
        "data": "?",
        "lasts": "5",
        "made": "2025-02-30T00:00:00Z",
        "more": [],
        "counts": {"x": 1, "1": -1},
        "words": {"yes": "x"},
        "inside": {"d": {"clas": "x"}},
        "mask": 1,
        "seen": ["2025-01-01"],
        "materials": [None, "MATERIAL_WOOD"],
        "wrapped": "1",
        "list": {},
    }

    answer = await shelves.client.post(
        "/api/v1/shelves/x/things/-1:put?tries=a&shelf.plac=x&thing.name=y", json=thing
    )

    assert answer.status_code == 400
    assert {error["path"] for error in answer.json()["errors"]} == {
        *("shelf.id", "number", "tries[0]", "shelf.plac", "thing.name"),
        *("weight", "width", "data", "lasts", "made", "more", "counts.x", "counts.1", "words.yes"),
        *("inside.d.clas", "mask", "seen[0]", "materials[0]", "materials[1]", "wrapped", "list"),
    }


async def test_numbers_that_json_cannot_write_are_words(shelves: Any) -> None:
    answer = await shelves.client.post("/api/v1/shelves/1/things/1:put", json={"weight": "-Infinity"})

    assert answer.json()["weight"] == "-Infinity"


@pytest.mark.parametrize("price", ["14.50", "12345678901234567890.123456789012345678", "0", "-7", "2.5"])
async def test_a_decimal_is_a_number_that_loses_no_digit(shelves: Any, price: str) -> None:
    answer = await shelves.client.post("/api/v1/shelves/1/things/1:put", content=f'{{"price": {price}}}')

    assert shelves.recorder.requests[-1].thing.price in (price, price.rstrip("0"))
    assert f'"price":{shelves.recorder.requests[-1].thing.price}' in answer.text
    refused = await shelves.client.post("/api/v1/shelves/1/things/1:put", json={"price": price})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "WRONG_TYPE")


async def test_it_is_documented(shelves: Any) -> None:
    document = (await shelves.client.get("/openapi-pipeline-engine.json")).json()

    put = document["paths"]["/api/v1/shelves/{shelf.id}/things/{number}:put"]["post"]
    assert (put["operationId"], put["summary"]) == ("putThing", "Puts something onto a shelf")
    assert {parameter.get("name") for parameter in put["parameters"]} >= {
        "shelf.id",
        "number",
        "shelf.place",
        "tries",
    }
    assert document["components"]["schemas"]["Material"]["enum"] == ["WOOD"]
    assert document["components"]["schemas"]["Level"]["enum"] == ["LOW", "HIGH"]
    assert document["components"]["schemas"]["Thing"]["properties"]["price"]["type"] == "number"
    assert "/api/v1/pipelines" not in document["paths"]
