"""Calls to addresses that users name: what gets through, and what must not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from headrace_outbound.guard import AddressGuard, AddressRefused
from headrace_outbound.posting import CallFailed, GuardedPoster, InvalidUrl
from headrace_outbound.standard_webhooks import InvalidSecret, headers, key_of

CANARY = "canary-4711"
Reply = Callable[[bytes], bytes]


@asynccontextmanager
async def server(reply: Reply) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers each request with what `reply` makes of it; its port, and what came."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        heard.append(head + await reader.readexactly(length))
        writer.write(reply(heard[-1]))
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard


def local(timeout: float = 10.0) -> GuardedPoster:
    return GuardedPoster(AddressGuard(allow_loopback=True), timeout=timeout)


async def test_a_body_arrives_at_the_checked_address_under_the_given_name() -> None:
    async with server(lambda _: b"HTTP/1.1 204 No Content\r\n\r\n") as (port, heard):
        answer = await local().post(f"http://localhost:{port}/a?b=c", b"{}", {"Content-Type": "text/x"})
    assert answer.is_success
    (request,) = heard
    assert request.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert f"host: localhost:{port}".encode() in request.lower()
    assert request.endswith(b"\r\n\r\n{}")


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    reply = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/elsewhere\r\n\r\n"
    ports: list[int] = []
    async with server(lambda _: reply % ports[0]) as (port, heard):
        ports.append(port)
        answer = await local().post(f"http://127.0.0.1:{port}/", b"x", {})
    assert (answer.status, len(heard)) == (302, 1)


@pytest.mark.parametrize(
    ("said", "seconds"), [(b"7", 7.0), (b"soon", None), (b"Wed, 21 Oct 2015 07:28:00 GMT", 0.0)]
)
async def test_the_receiver_says_when_it_wants_to_be_asked_again(said: bytes, seconds: float | None) -> None:
    reply = b"HTTP/1.1 503 Busy\r\nRetry-After: " + said + b"\r\nContent-Length: 0\r\n\r\n"
    async with server(lambda _: reply) as (port, _):
        answer = await local().post(f"http://127.0.0.1:{port}/", b"x", {})
    assert (answer.status, answer.retry_after) == (503, seconds)


async def test_loopback_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(AddressRefused, match="loopback"):
        await GuardedPoster(AddressGuard()).post(f"http://127.0.0.1:1/{CANARY}", b"", {})


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://example.com/{CANARY}", f"http:///{CANARY}", f"https://u:{CANARY}@example.com/",
        f"http://example.com:99999/{CANARY}", f"http://example.com/{CANARY} x", CANARY,
    ],
)  # fmt: skip
async def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        await local().post(url, b"", {})
    assert CANARY not in str(caught.value)


async def _nobody(port: int) -> None:
    with pytest.raises(CallFailed) as caught:
        await local().post(f"http://127.0.0.1:{port}/{CANARY}", b"", {})
    assert CANARY not in str(caught.value)


async def test_what_does_not_answer_fails_without_telling_the_path() -> None:
    async with server(lambda _: b"") as (port, _):
        await _nobody(port)  # it hangs up
    await _nobody(port)  # it does not listen any more


async def test_a_slow_answer_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        with pytest.raises(CallFailed, match="within"):
            await local(timeout=0.05).post(
                f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", b"", {}
            )


def test_the_signature_is_that_of_the_specification() -> None:
    # The vector of the specification's reference libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    made = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "whsec_", f"whsec_{CANARY}", "whsec_c2hvcnQ="])
def test_a_secret_of_another_form_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(InvalidSecret) as caught:
        key_of(secret)
    assert CANARY not in str(caught.value)
