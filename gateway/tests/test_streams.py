"""RPCs that answer with a stream, over real HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool, message_factory
from headrace_chassis.errors import NotFound
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import serve
from headrace_chassis.testing.waiting import eventually
from headrace_gateway.config import GatewaySettings
from headrace_gateway.contract import load_contract
from headrace_gateway.wiring import build

from .compiling import compiled
from .conftest import Recorder, serve_parts

pytestmark = pytest.mark.asyncio(loop_scope="session")

PACKAGE = "headrace.streaming.v1"
SOUND = "/api/v1/tapes/one/sound"
PIECE = 64 * 1024


class Tapes:
    """Plays what the test has put in."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.played = 0
        self.ended = asyncio.Event()
        self.play: Any = None
        self.follow: Any = None
        self.show: Any = None

    async def PlayTape(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.metadata = dict(context.invocation_metadata())
        try:
            async for message in self.play(request, context):
                self.played += 1
                yield message
        finally:
            self.ended.set()

    async def ShowShelf(self, request: Any, context: Any) -> Any:
        return await self.show(request)

    async def FollowShelf(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for message in self.follow(request, context):
            yield message

    async def FollowTapes(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for message in self.follow(request, context):
            yield message


class Deck:
    """A gateway before the tapes."""

    def __init__(self, served: Any, tapes: Tapes, body: Any, tape: Any) -> None:
        self.gateway = served
        self.client: httpx.AsyncClient = served.client
        self.tapes = tapes
        self.body = body
        self.tape = tape


def _add(service: Any, message: Any) -> Any:
    """Returns what a generated `add_…_to_server` is."""

    def add(tapes: Any, server: Any) -> None:
        server.add_registered_method_handlers(
            service.full_name,
            {
                rpc.name: _handler(rpc)(
                    getattr(tapes, rpc.name),
                    message(rpc.input_type).FromString,
                    lambda m: m.SerializeToString(),
                )
                for rpc in service.methods
            },
        )

    return add


def _handler(rpc: Any) -> Any:
    if rpc.server_streaming:
        return grpc.unary_stream_rpc_method_handler
    return grpc.unary_unary_rpc_method_handler


@pytest.fixture(scope="session")
def tape_contract(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled("streaming.proto", PACKAGE, tmp_path_factory.mktemp("streaming") / "set.binpb")


@pytest_asyncio.fixture(loop_scope="session")
async def deck(tape_contract: bytes, authority: Authority) -> AsyncIterator[Deck]:
    find = descriptor_pool.Default().FindServiceByName
    service, shelves = find(f"{PACKAGE}.TapeService"), find(f"{PACKAGE}.ShelfService")
    message = message_factory.GetMessageClass
    tapes = Tapes()
    async with AsyncExitStack() as stack:
        back = await stack.enter_async_context(
            serve(authority, [(each, _add(each, message), tapes) for each in (service, shelves)])
        )
        settings = GatewaySettings(
            **authority.auth_values(), http_listen="127.0.0.1:0", max_streams_per_caller=2
        )
        parts = build(settings, {"streaming": back.target}, load_contract(tape_contract))
        served = await serve_parts(stack, parts, settings, authority, Recorder())
        body = message(service.methods_by_name["PlayTape"].output_type)
        tape = message(service.methods_by_name["FollowTapes"].output_type)
        yield Deck(served, tapes, body, tape)


async def test_bytes_come_through_as_they_are(deck: Deck) -> None:
    async def play(_request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(
            (
                ("http-status", "206"),
                ("http-content-length", "6"),
                ("http-content-range", "bytes 0-5/9"),
                ("http-etag", '"abc"'),
                ("http-content-disposition", 'attachment; filename="one.wav"'),
                ("http-set-cookie", "a=b"),
            )
        )
        yield deck.body(content_type="audio/wav", data=b"one")
        yield deck.body(data=b"two")

    deck.tapes.play = play
    answer = await deck.client.get(SOUND, headers={"Range": "bytes=0-5", "If-Range": '"abc"'})

    assert (answer.status_code, answer.content) == (206, b"onetwo")
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["content-length"] == "6"
    assert answer.headers["content-range"] == "bytes 0-5/9"
    assert answer.headers["etag"] == '"abc"'
    assert answer.headers["content-disposition"] == 'attachment; filename="one.wav"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "x-request-id" in answer.headers
    assert "set-cookie" not in answer.headers
    assert deck.tapes.metadata["http-range"] == "bytes=0-5"
    assert "http-if-range" not in deck.tapes.metadata


async def test_an_answer_may_have_no_body_at_all(deck: Deck) -> None:
    async def play(_request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata((("http-status", "304"), ("http-etag", '"abc"')))
        return
        yield

    deck.tapes.play = play
    answer = await deck.client.get(SOUND, headers={"If-None-Match": '"abc"'})

    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"abc"')
    assert deck.tapes.metadata["http-if-none-match"] == '"abc"'


async def test_head_tells_the_headers_and_ends_the_rpc(deck: Deck) -> None:
    async def play(_request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata((("http-content-length", "1000000"),))
        for _ in range(1_000_000):
            yield deck.body(content_type="audio/wav", data=b"x")

    deck.tapes.play = play
    answer = await deck.client.head(SOUND)

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "1000000")
    async with asyncio.timeout(10):
        await deck.tapes.ended.wait()


async def test_a_slow_client_slows_the_service_down_and_one_that_leaves_ends_it(deck: Deck) -> None:
    async def play(_request: Any, _context: Any) -> AsyncIterator[Any]:
        while True:
            yield deck.body(data=bytes(PIECE))

    deck.tapes.play = play
    seen = -1

    async def stands_still() -> bool:
        nonlocal seen
        before, seen = seen, deck.tapes.played
        await asyncio.sleep(0.1)
        return before == deck.tapes.played

    # The kernel's buffers grow to what the machine allows; those of this client do not.
    raw = socket.create_connection(("127.0.0.1", deck.gateway.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
    reader, writer = await asyncio.open_connection(sock=raw, limit=PIECE)
    token = deck.gateway.authority.user("viewer")
    writer.write(f"GET {SOUND} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    await eventually(stands_still)
    assert deck.tapes.played * PIECE < 16 * 1024 * 1024
    assert not deck.tapes.ended.is_set()

    writer.close()
    async with asyncio.timeout(10):
        await deck.tapes.ended.wait()


async def test_messages_are_a_line_each_and_go_out_as_they_come(deck: Deck) -> None:
    go_on = asyncio.Event()

    async def follow(request: Any, _context: Any) -> AsyncIterator[Any]:
        yield deck.tape(name="one", seconds=request.count)
        await go_on.wait()
        yield deck.tape(name="two")

    deck.tapes.follow = follow
    async with deck.client.stream("GET", "/api/v1/tapes?count=7") as answer:
        lines = answer.aiter_lines()
        first = await anext(lines)
        go_on.set()
        rest = [line async for line in lines]

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert (first, rest) == ('{"name":"one","seconds":7}', ['{"name":"two","seconds":0}'])


async def test_one_route_answers_at_once_or_streams_as_it_is_asked(deck: Deck) -> None:
    find = descriptor_pool.Default().FindMessageTypeByName
    shelf = message_factory.GetMessageClass(find(f"{PACKAGE}.ShowShelfResponse"))

    async def show(request: Any) -> Any:
        return shelf(tapes=[deck.tape(name=request.name)])

    async def follow(request: Any, _context: Any) -> AsyncIterator[Any]:
        yield deck.tape(name=f"live {request.name}")

    deck.tapes.show, deck.tapes.follow = show, follow
    path = "/api/v1/shelves/one"

    at_once, streamed = await deck.client.get(path), await deck.client.get(f"{path}?follow=true")

    assert at_once.headers["content-type"] == "application/json"
    assert at_once.json() == {"tapes": [{"name": "one", "seconds": 0}]}
    assert streamed.headers["content-type"] == "application/x-ndjson"
    assert streamed.text == '{"name":"live one","seconds":0}\n'
    wrong = await deck.client.get(f"{path}?follow=perhaps")
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, "follow")


async def test_an_error_before_the_first_message_is_a_problem_document(deck: Deck) -> None:
    async def play(request: Any, _context: Any) -> AsyncIterator[Any]:
        raise NotFound("tape", request.name)
        yield

    deck.tapes.play = play
    answer = await deck.client.get(SOUND)

    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("length", [(), (("http-content-length", "6"),)])
async def test_an_error_after_it_cuts_the_connection(deck: Deck, length: Any) -> None:
    async def play(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(length)
        yield deck.body(data=b"one")
        raise NotFound("tape", request.name)

    deck.tapes.play = play
    async with deck.client.stream("GET", SOUND) as answer:
        pieces = answer.aiter_raw()
        first = await anext(pieces)
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)

    assert first == b"one"


async def test_a_service_that_says_nothing_has_a_deadline(deck: Deck) -> None:
    async def follow(_request: Any, _context: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    deck.tapes.follow = follow
    answer = await deck.client.get("/api/v1/tapes")

    assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")


async def test_a_caller_has_so_many_streams_and_no_more(deck: Deck) -> None:
    async def follow(_request: Any, _context: Any) -> AsyncIterator[Any]:
        yield deck.tape(name="one")
        await asyncio.Event().wait()

    deck.tapes.follow = follow
    async with deck.client.stream("GET", "/api/v1/tapes"), deck.client.stream("GET", "/api/v1/tapes"):
        refused = await deck.client.get("/api/v1/tapes")

    async def welcome() -> bool:
        async with deck.client.stream("GET", "/api/v1/tapes") as answer:
            return answer.status_code == 200

    assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
    assert refused.headers["retry-after"] == "5"
    await eventually(welcome)


async def test_a_header_that_cannot_travel_on_is_refused(deck: Deck) -> None:
    answer = await deck.client.get(SOUND, headers={b"Range": "bytes=0-\xe4".encode("latin-1")})

    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "range")


async def test_streams_are_documented(deck: Deck) -> None:
    document = (await deck.client.get("/openapi-pipeline-engine.json")).json()

    play = document["paths"]["/api/v1/tapes/{name}/sound"]["get"]
    follow = document["paths"]["/api/v1/tapes"]["get"]
    assert play["responses"]["200"]["content"].keys() == {"audio/wav", "audio/flac"}
    assert {"206", "304", "416"} <= play["responses"].keys()
    assert {"$ref": "#/components/parameters/Range"} in play["parameters"]
    assert follow["responses"]["200"]["content"].keys() == {"application/x-ndjson"}
    shelf = document["paths"]["/api/v1/shelves/{name}"]["get"]
    assert shelf["responses"]["200"]["content"].keys() == {"application/json", "application/x-ndjson"}
