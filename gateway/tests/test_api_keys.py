"""API keys as credentials: exchanged where they are owned, believed for a moment, limited one by one."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio
from headrace.metadata.v1 import api_keys_pb2
from headrace_chassis.api_key_tokens import ApiKeyTokens
from headrace_chassis.errors import HeadraceError, Unauthenticated, Unavailable
from headrace_chassis.identity import Role
from headrace_chassis.testing.authority import TENANT, Authority
from headrace_chassis.testing.serving import serve
from headrace_chassis.testing.stand_ins import stand_in
from headrace_chassis.verification import TokenVerifier
from headrace_gateway.config import GatewaySettings
from headrace_gateway.http.api_keys import BELIEVED_SECONDS, ApiKeyExchange
from headrace_gateway.server import HttpServer
from headrace_gateway.wiring import build

PIPELINES = "/api/v1/pipelines"
VALID = "hr_valid"


class Keys:
    """Owns keys as metadata does, and counts how often it is asked."""

    def __init__(self, authority: Authority) -> None:
        self.tokens = ApiKeyTokens(authority.service_key_file("metadata"), 5.0)
        self.valid = {VALID: uuid.UUID(int=1), "hr_other": uuid.UUID(int=2)}
        self.failure: HeadraceError | None = None
        self.asked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def ListApiKeys(self, request: Any, context: Any) -> Any:
        return api_keys_pb2.ListApiKeysResponse()

    async def CreateApiKey(self, request: Any, context: Any) -> Any:
        return api_keys_pb2.ApiKey(id=str(uuid.UUID(int=1)), name=request.name, key=VALID)

    async def ExchangeApiKey(self, request: Any, context: Any) -> Any:
        self.asked += 1
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        if request.key not in self.valid:
            raise Unauthenticated("the API key is not valid")
        token, expires = self.tokens.token(self.valid[request.key], TENANT, Role.ADMIN, None)
        answer = api_keys_pb2.ExchangeApiKeyResponse(token=token)
        answer.expires_at.FromNanoseconds(int(expires * 1e9))
        return answer


class World:
    """A gateway in front of keys, with a clock that a test moves."""

    def __init__(self, keys: Keys, exchange: ApiKeyExchange, base_url: str) -> None:
        self.keys = keys
        self.exchange = exchange
        self.base_url = base_url
        self.now = 0.0

    async def get(self, key: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.base_url) as client:
            return await client.get("/api/v1/api-keys", headers={"Authorization": f"Bearer {key}"})


@pytest_asyncio.fixture
async def world(authority: Authority) -> AsyncIterator[World]:
    keys = Keys(authority)
    service = stand_in(api_keys_pb2.DESCRIPTOR.services_by_name["ApiKeyService"], keys)
    async with AsyncExitStack() as stack:
        back = await stack.enter_async_context(serve(authority, [service]))
        settings = GatewaySettings(
            **authority.auth_values(),
            http_listen="127.0.0.1:0",
            metadata_target=back.target,
            rate_limit_burst=3,
            rate_limit_per_second=0.001,
        )
        parts = build(settings, settings.targets())
        for channel in parts.channels:
            stack.push_async_callback(channel.close)
        server = HttpServer(parts.app, settings.http_listen, 5.0, drain_seconds=1.0)
        await server.start()
        stack.push_async_callback(server.drain)
        verifier = TokenVerifier(authority.auth_settings())
        made = World(keys, ApiKeyExchange(back.channel, verifier, lambda: made.now), "")
        made.base_url = f"http://127.0.0.1:{server.port}"
        yield made


async def test_a_key_opens_what_its_role_may(world: World) -> None:
    answer = await world.get(VALID)
    assert (answer.status_code, answer.json()["data"]) == (200, [])


async def test_a_key_that_was_just_made_is_shown(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.base_url) as client:
        answer = await client.post(
            "/api/v1/api-keys",
            json={"name": "ci", "role": "VIEWER"},
            headers={"Authorization": f"Bearer {VALID}"},
        )
    assert (answer.status_code, answer.json()["key"]) == (201, VALID)


@pytest.mark.parametrize("key", ["hr_unknown", "hr_", f"hr_{'x' * 5000}", "hr_Ä"])
async def test_any_other_key_is_one_and_the_same_401(world: World, key: str) -> None:
    async with httpx.AsyncClient(base_url=world.base_url) as client:
        answer = await client.get(PIPELINES, headers={b"Authorization": f"Bearer {key}".encode("latin-1")})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["detail"]) == (
        401,
        "UNAUTHENTICATED",
        "the API key is not valid",
    )
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_each_key_has_a_rate_limit_of_its_own(world: World) -> None:
    statuses = [(await world.get(VALID)).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert (await world.get("hr_other")).status_code == 200


async def test_many_requests_at_once_share_one_exchange(world: World) -> None:
    world.keys.go_on.clear()
    asking = [asyncio.create_task(world.exchange.principal(VALID)) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # one client goes away, the others still get their answer
    world.keys.go_on.set()
    found = await asyncio.gather(*asking[1:])
    assert {principal.subject for principal in found} == {f"apikey:{uuid.UUID(int=1)}"}
    assert world.keys.asked == 1


async def test_an_answer_is_believed_for_a_moment_so_that_a_revoked_key_soon_opens_nothing(
    world: World,
) -> None:
    await world.exchange.principal(VALID)
    del world.keys.valid[VALID]
    world.now += BELIEVED_SECONDS - 0.01
    await world.exchange.principal(VALID)
    assert world.keys.asked == 1
    world.now += 0.02
    for _ in range(3):  # a refusal is believed for as long
        with pytest.raises(Unauthenticated):
            await world.exchange.principal(VALID)
    assert world.keys.asked == 2


async def test_while_the_owner_of_keys_is_away_it_is_503_and_nothing_is_remembered(world: World) -> None:
    world.keys.failure = HeadraceError("away", reason=Unavailable.reason, may_repeat=False)
    answer = await world.get(VALID)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    world.keys.failure = None
    assert (await world.get(VALID)).status_code == 200
