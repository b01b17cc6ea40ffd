"""An HTTP POST to an address that a user has named.

The name is resolved once, by the guard, and what was checked is connected to. Redirects are not followed, so
that nobody leads the call elsewhere; proxies of the environment are not used, since they would resolve the
name again; of the answer, only the status and `Retry-After` are looked at, and its body is not read.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

import httpx

from headrace_outbound.guard import AddressGuard, AddressRefused

MOST_ADDRESSES = 3
"""How many addresses of a name are tried, one after the other, where a connection cannot be made."""

USER_AGENT = "Headrace/1"


class InvalidUrl(ValueError):  # noqa: N818 - it names what is the case
    """It is no URL that may be called; the message does not repeat it, since it may hold a secret."""


class CallFailed(Exception):  # noqa: N818 - it names what has happened
    """There was no answer. The message names the host at the most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is looked at of an answer."""

    status: int
    retry_after: float | None = None
    """After how many seconds the receiver wants to be asked again, where it says so."""

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken what was sent (2xx)."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class _Place:
    scheme: str
    host: str
    port: int
    authority: str
    """The host as the `Host` header has it."""
    path: str


class GuardedPoster:
    """Posts through an address guard, each call within `timeout` seconds from the look-up to the answer. A
    connection ends with its call, so that nothing is left open."""

    def __init__(self, guard: AddressGuard, *, timeout: float = 15.0) -> None:
        self._guard = guard
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=timeout,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Sends a body and returns what came of it, whatever its status.

        Raises:
            InvalidUrl: it cannot be called at all.
            AddressRefused: the guard does not let it pass, or the host has no address.
            CallFailed: nothing answered in time.
        """
        place = _place(url)
        try:
            async with asyncio.timeout(self._timeout):
                addresses = await self._guard.resolve(place.host, place.port)
                return await self._first(place, addresses[:MOST_ADDRESSES], body, headers)
        except TimeoutError:
            raise CallFailed(f"{place.host} did not answer within {self._timeout:g} seconds") from None

    async def _first(
        self, place: _Place, addresses: tuple[str, ...], body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        failure: httpx.HTTPError | None = None
        for address in addresses:
            try:
                return await self._at(place, address, body, headers)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error  # nothing was sent yet: another address may be reachable
            except httpx.HTTPError as error:
                raise CallFailed(f"{place.host}: {_kind(error)}") from None
        raise CallFailed(f"{place.host}: {_kind(failure)}") from None

    async def _at(self, place: _Place, address: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        bracketed = f"[{address}]" if ":" in address else address
        request = self._client.build_request(
            "POST",
            f"{place.scheme}://{bracketed}:{place.port}{place.path}",
            content=body,
            headers={"User-Agent": USER_AGENT, **headers, "Host": place.authority},
            # The certificate must be that of the name, not of the address.
            extensions={"sni_hostname": place.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            return Answer(response.status_code, _retry_after(response.headers.get("retry-after")))
        finally:
            await response.aclose()


def _place(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidUrl("the URL is malformed") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise InvalidUrl("an http:// or https:// URL with a host is expected")
    if parts.username is not None or parts.password is not None:
        raise InvalidUrl("the URL must not hold a user or password")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidUrl("the URL must have printable ASCII characters only")
    query = f"?{parts.query}" if parts.query else ""
    return _Place(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        authority=_authority(parts),
        path=f"{parts.path or '/'}{query}",
    )


def _authority(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _kind(error: httpx.HTTPError | None) -> str:
    """What went wrong, without the text of the driver: it may hold the URL."""
    match error:
        case httpx.ConnectError():
            return "no connection could be made"
        case httpx.TimeoutException():
            return "it did not answer in time"
        case _:
            return "the connection broke before there was an answer"


def _retry_after(value: str | None) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3); None for anything else."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)


__all__ = ["AddressRefused", "Answer", "CallFailed", "GuardedPoster", "InvalidUrl"]
