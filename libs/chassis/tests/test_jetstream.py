"""Publishing to streams: what they took, what they refused, and what nobody answered for."""

import uuid
from collections.abc import AsyncIterator

import nats
import pytest
from headrace_chassis.jetstream import OutgoingMessage, StreamPublisher
from headrace_chassis.testing.broker import NatsServer
from nats.aio.client import Client

ANSWER_SECONDS = 30.0


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url)
    yield connected
    await connected.close()


def messages(stream: str, *identities: str) -> list[OutgoingMessage]:
    return [OutgoingMessage(f"{stream}.x", b"data", identity, {"ce-id": identity}) for identity in identities]


async def stream_of(client: Client) -> str:
    name = f"t{uuid.uuid4().hex[:8]}"
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    return name


async def test_a_stream_says_what_it_took_and_keeps_the_order(client: Client) -> None:
    stream = await stream_of(client)
    publisher = StreamPublisher(client)

    taken = await publisher.publish(stream, messages(stream, *"abc"), timeout=ANSWER_SECONDS)
    again = await publisher.publish(stream, messages(stream, *"cd"), timeout=ANSWER_SECONDS)

    assert taken == [True, True, True]
    assert again == [True, True], "one that it has already counts as taken"
    kept = [await client.jetstream().get_msg(stream, seq) for seq in range(1, 5)]
    assert [(message.headers or {}).get("Nats-Msg-Id") for message in kept] == ["a", "b", "c", "d"]


async def test_a_stream_that_is_not_the_expected_one_refuses(client: Client) -> None:
    stream = await stream_of(client)

    taken = await StreamPublisher(client).publish("other", messages(stream, "a"), timeout=ANSWER_SECONDS)

    assert taken == [False]


async def test_where_there_is_no_stream_nothing_is_taken(client: Client) -> None:
    publisher = StreamPublisher(client)

    assert await publisher.publish("none", messages("none", "a", "b"), timeout=ANSWER_SECONDS) == [False] * 2
    assert await publisher.publish("none", [], timeout=ANSWER_SECONDS) == []
