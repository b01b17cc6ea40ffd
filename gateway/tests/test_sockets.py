"""WebSockets over real connections: who may come in, what many watchers cost, and how it ends."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import pytest_asyncio
from headrace.execution.v1 import (
    runs_pb2,
    stream_tickets_pb2,
)
from headrace.metadata.v1 import api_keys_pb2
from headrace_chassis.api_key_tokens import ApiKeyTokens
from headrace_chassis.bound_tokens import BoundTokens
from headrace_chassis.errors import NotFound, Unauthenticated
from headrace_chassis.identity import Bound, Role, current_principal
from headrace_chassis.latest import Latest
from headrace_chassis.server import GrpcServer, Service
from headrace_chassis.settings import ServerSettings
from headrace_chassis.testing.authority import TENANT, Authority
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.serving import serve
from headrace_chassis.testing.stand_ins import stand_in
from headrace_chassis.testing.waiting import eventually
from headrace_chassis.verification import TokenVerifier
from headrace_gateway.config import GatewaySettings
from headrace_gateway.wiring import build
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .conftest import PIPELINE, RUN, Recorder, serve_parts
from .test_api_keys import VALID, Keys

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAM = f"/api/v1/runs/{RUN}/stream"
RUNNING, COMPLETED = runs_pb2.RUN_STATE_RUNNING, runs_pb2.RUN_STATE_COMPLETED
TICKETS = stream_tickets_pb2.DESCRIPTOR.services_by_name["StreamTicketService"]
SERVICE = runs_pb2.DESCRIPTOR.services_by_name["RunService"]
WATCHERS = 1000


class WatchedRun:
    """One run, of which the test says how it stands. It outlives the server, as a database does."""

    def __init__(self) -> None:
        self.state: Latest[runs_pb2.RunStatusResponse] = Latest()
        self.calls = 0
        self.open = 0
        self.callers: list[str] = []
        self.change(1)

    def change(self, revision: int, **more: Any) -> None:
        message = runs_pb2.RunStatusResponse(
            run_id=RUN, pipeline_id=PIPELINE, **{"overall_status": RUNNING, **more}
        )
        message.revision = revision
        self.state.show(revision, message)

    async def WatchRun(self, request: Any, context: Any) -> AsyncIterator[Any]:
        principal = current_principal()
        if request.run_id != RUN or principal.workspaces == frozenset():
            raise NotFound("run", request.run_id)
        self.calls += 1
        self.open += 1
        self.callers.append(principal.subject)
        revision = -1
        try:
            while True:
                revision, message = await self.state.after(revision)
                yield message
                if message.overall_status == COMPLETED:
                    return
        finally:
            self.open -= 1


class Tickets:
    """Takes each ticket once, as the service does."""

    def __init__(self, authority: Authority) -> None:
        self.tokens = BoundTokens("execution", authority.service_key_file("execution"))
        self.good: dict[str, str] = {}
        self.lifetime = 600.0

    def make(self, workspaces: Any = None) -> str:
        ticket = uuid.uuid4().hex * 2
        self.good[ticket], _ = self.tokens.token(
            Bound("/headrace.execution.v1.RunService/WatchRun", RUN),
            subject="ada",
            tenant=TENANT,
            workspaces=workspaces,
            role=Role.VIEWER,
            until=time.time() + self.lifetime,
        )
        return ticket

    async def RedeemStreamTicket(self, request: Any, context: Any) -> Any:
        token = self.good.pop(request.ticket, None)
        if token is None or request.run_id != RUN:
            raise Unauthenticated("the ticket is not valid")
        return stream_tickets_pb2.RedeemStreamTicketResponse(token=token)


class House:
    """A gateway, and behind it a service that can be taken away and brought back."""

    def __init__(self, authority: Authority, stack: AsyncExitStack) -> None:
        self.authority = authority
        self.run = WatchedRun()
        self.tickets = Tickets(authority)
        self.port = free_port()
        self.server: GrpcServer | None = None
        self.gateway: Any = None
        self._stack = stack

    async def start(self, targets: dict[str, str] | None = None, **settings: Any) -> None:
        await self.serve()
        given = GatewaySettings(**{**self.authority.auth_values(), "http_listen": "127.0.0.1:0", **settings})
        parts = build(given, {"execution": f"127.0.0.1:{self.port}", **(targets or {})})
        self.gateway = await serve_parts(self._stack, parts, given, self.authority, Recorder())

    async def serve(self) -> None:
        listen = {"grpc_listen": f"127.0.0.1:{self.port}", "drain_seconds": 0.0}
        settings = ServerSettings(**{**self.authority.server_values(), **listen})
        services: list[Service] = [stand_in(SERVICE, self.run), stand_in(TICKETS, self.tickets)]
        self.server = GrpcServer(settings, TokenVerifier(settings), services)
        await self.server.start()

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.stop()

    def connect(self, token: str | None = None, path: str = STREAM, **options: Any) -> connect:
        """A connection that shows its token in the header."""
        token = self.authority.user("viewer") if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        uri = f"ws://127.0.0.1:{self.gateway.port}{path}"
        given = {"additional_headers": headers, "ping_interval": None, "proxy": None, **options}
        return connect(uri, **given)

    async def refused(self, *arguments: Any, **options: Any) -> tuple[int, dict[str, Any]]:
        """The answer to a connection that must not be upgraded."""
        with pytest.raises(InvalidStatus) as caught:
            async with self.connect(*arguments, **options):
                pass
        response = caught.value.response
        assert response.headers["content-type"] == "application/problem+json"
        return response.status_code, json.loads(response.body or b"")


@pytest_asyncio.fixture(loop_scope="session")
async def house(authority: Authority) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        made = House(authority, stack)
        await made.start()
        yield made
        await made.stop()


async def revision(socket: ClientConnection) -> int:
    async with asyncio.timeout(20):
        return int(json.loads(await socket.recv())["revision"])


async def closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    """How the other side closes; messages before that are dropped."""
    async with asyncio.timeout(20):
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code, socket.close_reason


async def test_the_state_comes_first_then_each_change_and_the_end(house: House) -> None:
    async with house.connect() as socket:
        first = json.loads(await socket.recv())
        house.run.change(2)
        second = await revision(socket)
        house.run.change(3, overall_status=COMPLETED)
        third = json.loads(await socket.recv())
        end = await closed(socket)

    assert (first["runId"], first["overallStatus"], first["revision"], second) == (RUN, "RUNNING", 1, 2)
    assert (third["overallStatus"], end) == ("COMPLETED", (1000, "complete"))


async def test_a_token_may_come_as_a_subprotocol(house: House) -> None:
    token = house.authority.user("viewer", subject="bob")
    async with house.connect("", subprotocols=["bearer", token]) as socket:
        assert socket.subprotocol == "bearer"
        assert await revision(socket) == 1

    assert house.run.callers == ["bob"]


async def test_a_ticket_opens_the_stream_once(house: House) -> None:
    ticket = house.tickets.make()
    async with house.connect("", path=f"{STREAM}?ticket={ticket}") as socket, house.connect() as other:
        assert (await revision(socket), await revision(other)) == (1, 1)
        calls = house.run.calls
        again = await house.refused("", path=f"{STREAM}?ticket={ticket}")
        house.run.change(2, overall_status=COMPLETED)
        assert (await revision(socket), await closed(socket)) == (2, (1000, "complete"))

    assert (again[0], again[1]["detail"]) == (401, "the ticket is not valid; make a new one")
    assert calls == 1


async def test_a_ticket_that_is_none_is_401_and_not_even_shown_where_it_cannot_be_one(house: House) -> None:
    ticket = house.tickets.make()
    wrong = [
        await house.refused("", path=f"{STREAM}?ticket={given}")
        for given in ("x" * 43, "", "short", "%20" * 30, f"{ticket}&ticket={ticket}", ticket[:-1])
    ]
    elsewhere = await house.refused("", path=f"/api/v1/runs/{uuid.uuid4()}/stream?ticket={ticket}")

    assert {status for status, _ in wrong} == {401}
    assert elsewhere[0] == 401
    assert ticket not in house.tickets.good


async def test_a_token_from_a_ticket_is_no_credential_elsewhere(house: House) -> None:
    token = house.tickets.good[house.tickets.make()]
    status, problem = await house.refused(token)
    answer = await house.gateway.anonymous.get(
        f"/api/v1/runs/{RUN}", headers={"Authorization": f"Bearer {token}"}
    )

    assert (status, problem["code"]) == (403, "ROLE_REQUIRED")
    assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED")


async def test_refusals_are_problem_documents_before_the_upgrade(house: House) -> None:
    nowhere = f"/api/v1/runs/{uuid.uuid4()}/stream"
    refusals = [
        await house.refused(""),
        await house.refused("not.a.token"),
        await house.refused(house.authority.user("viewer", lifetime=-60)),
        await house.refused("", path=f"{STREAM}?token={house.authority.user('viewer')}"),
        await house.refused(path=nowhere),
        await house.refused(house.authority.user("viewer", workspaces=[])),
        await house.refused(path="/api/v1/runs/x/y/z"),
        await house.refused(house.authority.user("viewer", roles=["guest"])),
        await house.refused(path=f"{STREAM}?depth=1"),
    ]

    assert [status for status, _ in refusals] == [401, 401, 401, 401, 404, 404, 404, 401, 400]
    assert refusals[4][1]["code"] == "NOT_FOUND"
    assert all(problem["requestId"] for _, problem in refusals)


async def test_other_credentials_than_a_users_are_403(house: House) -> None:
    house.authority.worker_key_file("worker-1")
    status, problem = await house.refused(house.authority.worker())

    assert (status, problem["code"]) == (403, "ROLE_REQUIRED")


async def test_without_an_upgrade_it_is_426(house: House) -> None:
    answer = await house.gateway.client.get(STREAM)

    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert answer.json()["code"] == "UPGRADE_REQUIRED"


async def test_a_thousand_watchers_cost_one_call(house: House, record_property: Any) -> None:
    tokens = [house.authority.user("viewer", subject=name) for name in ("ada", "bob")]
    async with AsyncExitStack() as stack:
        gate = asyncio.Semaphore(50)

        async def join(number: int) -> ClientConnection:
            async with gate:
                return await stack.enter_async_context(house.connect(tokens[number % 2]))

        sockets = await asyncio.gather(*(join(number) for number in range(WATCHERS)))
        firsts = await asyncio.gather(*map(revision, sockets))
        changed = time.perf_counter()
        house.run.change(2)
        seconds = await asyncio.gather(*map(revision, sockets))
        record_property("seconds_until_all_had_it", round(time.perf_counter() - changed, 3))
        calls = house.run.calls
        house.run.change(3, overall_status=COMPLETED)
        ends = await asyncio.gather(*map(closed, sockets))

    assert (set(firsts), set(seconds), {code for code, _ in ends}) == ({1}, {2}, {1000})
    assert calls == 1


async def test_who_has_other_rights_has_a_call_of_their_own(house: House) -> None:
    other = house.authority.user("viewer", workspaces=[uuid.uuid4()])
    async with house.connect() as one, house.connect(other) as two:
        await revision(one), await revision(two)
        assert house.run.open == 2

    async def none() -> bool:
        return house.run.open == 0

    assert await eventually(none)


async def test_a_slow_watcher_gets_the_newest_state_and_holds_up_nobody(house: House) -> None:
    padding = {"fill": "x" * 100_000}
    async with house.connect(max_queue=1) as slow, house.connect() as quick:
        await revision(slow)
        for number in range(2, 202):
            house.run.change(number, errors=padding)
            while await revision(quick) < number:
                pass
        seen = [await revision(slow)]
        while seen[-1] < 201:
            seen.append(await revision(slow))

    assert seen == sorted(set(seen))
    assert len(seen) < 200


async def test_a_restart_of_the_service_is_a_pause_and_nothing_else(house: House) -> None:
    async with house.connect() as socket:
        assert await revision(socket) == 1
        await house.stop()
        house.run.change(2)
        house.run.change(3)
        await house.serve()
        after = await revision(socket)
        house.run.change(4, overall_status=COMPLETED)
        last, end = await revision(socket), await closed(socket)

    assert (after, last, end[0], house.run.calls) == (3, 4, 1000, 2)


async def test_a_service_that_is_away_is_503(house: House) -> None:
    await house.stop()
    status, problem = await house.refused()
    await house.serve()

    assert (status, problem["code"]) == (503, "UNAVAILABLE")


async def test_it_ends_when_the_token_expires_and_goes_on_for_the_others(house: House) -> None:
    short = house.authority.user("viewer", lifetime=-3.0)  # clocks may differ by five seconds
    async with house.connect(short) as expiring, house.connect() as staying:
        assert (await revision(expiring), await revision(staying)) == (1, 1)
        end = await closed(expiring)
        house.run.change(2)
        after = await revision(staying)

    assert (end, after) == ((4401, "the token has expired"), 2)


async def test_with_an_api_key_it_goes_on_as_long_as_the_key_is_valid(authority: Authority) -> None:
    keys = Keys(authority)
    keys.tokens = ApiKeyTokens(authority.service_key_file("metadata"), 1.0)
    services = [stand_in(api_keys_pb2.DESCRIPTOR.services_by_name["ApiKeyService"], keys)]
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(serve(authority, services))
        house = House(authority, stack)
        await house.start({"metadata": owner.target})
        async with house.connect(VALID) as socket:
            await revision(socket)

            async def renewed() -> bool:
                return keys.asked >= 3

            assert await eventually(renewed)
            house.run.change(2)
            assert await revision(socket) == 2
            keys.valid.clear()
            end = await closed(socket)
        await house.stop()

    assert end == (4401, "the token has expired")


async def test_an_object_that_goes_away_ends_it(house: House) -> None:
    async with house.connect() as socket:
        await revision(socket)
        house.run.state.end(NotFound("run", RUN))
        end = await closed(socket)

    assert end[0] == 4404


async def test_a_caller_has_so_many_and_no_more(authority: Authority) -> None:
    async with AsyncExitStack() as stack:
        house = House(authority, stack)
        await house.start(max_streams_per_caller=1)
        async with house.connect() as socket:
            await revision(socket)
            status, problem = await house.refused()
        await house.stop()

    assert (status, problem["code"]) == (429, "RATE_LIMITED")


async def test_what_a_client_sends_is_ignored_unless_it_is_large(house: House) -> None:
    async with house.connect() as socket:
        await revision(socket)
        for _ in range(10):
            await socket.send("hello")
        house.run.change(2)
        assert await revision(socket) == 2
        await socket.send("x" * 10_000)
        end = await closed(socket)

    assert end[0] == 1009


async def test_a_client_that_does_not_answer_pings_is_cut_off(authority: Authority) -> None:
    async with AsyncExitStack() as stack:
        house = House(authority, stack)
        await house.start(ping_seconds=0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.gateway.port)
        head = f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {authority.user('viewer')}\r\n"
        head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        writer.write(f"{head}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
        async with asyncio.timeout(20):
            await reader.read()  # to the end

        async def none() -> bool:
            return house.run.open == 0

        assert await eventually(none)
        writer.close()
        await house.stop()


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", [f"Authorization: Bearer {'x' * 9000}", "Sec-WebSocket-Version: 13"]),
        ("GET", [f"X-{number}: x" for number in range(200)]),
        ("GET", ["Sec-WebSocket-Version: 12"]),
        ("POST", ["Sec-WebSocket-Version: 13", "Content-Length: 2"]),
        ("GET", ["Sec-WebSocket-Version: 13", "Content-Length: 2"]),
    ],
)
async def test_an_opening_request_that_is_none_is_refused(
    house: House, method: str, headers: list[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.gateway.port)
    usual = [
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    writer.write("\r\n".join([f"{method} {STREAM} HTTP/1.1", *usual, *headers, "", "ab"]).encode())
    async with asyncio.timeout(20):
        answer = await reader.read()  # to the end: the connection is closed
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]


async def test_a_gateway_that_drains_says_so(house: House) -> None:
    async with house.connect() as socket:
        await revision(socket)
        await house.gateway.server.drain()
        end = await closed(socket)

    assert end[0] == 1012


async def test_nothing_is_kept_of_who_has_gone(house: House) -> None:
    async with house.connect() as socket:
        await revision(socket)

    async def none() -> bool:
        return house.run.open == 0

    assert await eventually(none)
