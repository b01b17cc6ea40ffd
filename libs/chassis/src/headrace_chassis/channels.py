"""Channels to other services: deadlines that shrink, ids that travel on, retries where they are safe.

The channel wraps gRPC's own instead of using its interceptors, which make a task of every call. What it adds
to a call: the request id and trace context of the call that is being handled, and a deadline a little shorter
than what is left of that one's. gRPC itself retries what the service config names: calls that may be repeated
without harm.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import grpc
import headrace
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from headrace.common.v1 import options_pb2

from headrace_chassis.call_context import (
    AUTHORIZATION_KEY,
    IDEMPOTENCY_KEY,
    REQUEST_ID_KEY,
    current_request_id,
    remaining_seconds,
)
from headrace_chassis.errors import HeadraceError, from_rpc_error
from headrace_chassis.identity import ServiceTokens
from headrace_chassis.observability import tracing
from headrace_chassis.statuses import MAXIMUM_METADATA

Metadata = tuple[tuple[str, str], ...]
"""The metadata of a call, as gRPC takes it."""

DEFAULT_TIMEOUT_SECONDS = 30.0
"""How long a unary call may take where neither it nor the call being handled says."""

HOP_SHARE = 0.95
"""How much of the remaining time an outgoing call gets: the rest is for telling the caller that it took too
long."""

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_metadata_size", MAXIMUM_METADATA),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A service that restarts is back within a second or two; gRPC's own back-off would grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 1),
)


def open_channel(
    target: str, *, own_connection: bool = False, window_bytes: int | None = None
) -> grpc.aio.Channel:
    """Opens a channel to "host:port", or to all addresses of "dns:///name:port" in turn.

    Nothing is connected yet: the other side may start later. Channels to one target share a connection unless
    `own_connection` is set. `window_bytes` is how much of a stream may arrive ahead of its reader; without
    it, gRPC lets it grow with the bandwidth, to tens of megabytes on a fast network.
    """
    options = [*_OPTIONS, ("grpc.service_config", service_config())]
    if window_bytes is not None:
        options += [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", window_bytes)]
    if own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    return _Channel(grpc.aio.insecure_channel(target, options=options))


def call_metadata(token: str, *, idempotency_key: str | None = None) -> Metadata:
    """Returns the metadata of a call with a token: the caller's own, handed on, or one of ours."""
    bearer = (AUTHORIZATION_KEY, f"Bearer {token}")
    return (bearer,) if idempotency_key is None else (bearer, (IDEMPOTENCY_KEY, idempotency_key))


def service_metadata(tokens: ServiceTokens, tenant: uuid.UUID, on_behalf_of: str | None = None) -> Metadata:
    """Returns the metadata of a call that has no user behind it, for one tenant."""
    return call_metadata(tokens.token(tenant, on_behalf_of))


def failure_of(error: grpc.aio.AioRpcError) -> HeadraceError:
    """Returns what another service raised, as our own callers are to get it.

    The channel has repeated by now what may be repeated, so the error says that they must not.
    """
    told = from_rpc_error(error)
    told.may_repeat = False
    return told


@cache
def service_config() -> str:
    """Returns the service config (gRPC A6, A21): round robin, and retries of UNAVAILABLE for repeatable
    calls.

    A server that does not know whether a write happened forbids its retry by pushback, see
    errors.OutcomeUnknown; a connection that breaks says nothing, so a write that no contract calls repeatable
    is left to its caller.
    """
    retry = {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": service, "method": method} for service, method in _repeatable()]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [{"name": names, "retryPolicy": retry}],
        }
    )


def _repeatable() -> Iterator[tuple[str, str]]:
    """Yields the unary RPCs whose repetition does no harm.

    That is a GET, one that its contract says has no effect, and one between services, since those are written
    for callers that may die and ask again.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(headrace.descriptor_set())
    for file in files.file:
        for service in file.service:
            for method in service.method:
                rules = method.options.Extensions[options_pb2.method]
                is_get = bool(method.options.Extensions[annotations_pb2.http].get)
                between_services = rules.role == options_pb2.ROLE_SERVICE
                is_unary = not (method.client_streaming or method.server_streaming)
                if is_unary and (is_get or rules.no_effect or between_services):
                    yield f"{file.package}.{service.name}", method.name


class _Callable:
    """One RPC of a channel; adds the context of the call that is being handled."""

    __slots__ = ("_inner", "_is_unary", "_name")

    def __init__(self, inner: Any, method: str, *, is_unary: bool) -> None:
        self._inner = inner
        self._name = method.lstrip("/")
        self._is_unary = is_unary

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Begins the call, as gRPC's own multi-callables do."""
        span = tracing.client_span(self._name)
        given = tuple(metadata or ())
        call = self._inner(
            request,
            timeout=_shrunk(timeout) if self._is_unary else timeout,
            metadata=given + _context(given, span.traceparent),
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        if span.is_exported:
            call.add_done_callback(span.end)
        return call


def _shrunk(timeout: float | None) -> float:
    remaining = remaining_seconds()
    if remaining is None:
        return DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
    allowed = remaining * HOP_SHARE
    return allowed if timeout is None else min(timeout, allowed)


def _context(given: Sequence[tuple[str, str | bytes]], traceparent: str) -> Metadata:
    """Returns the request id and trace context, where there are some and the caller gave none."""
    names = {name for name, _ in given}
    added = ((REQUEST_ID_KEY, current_request_id()), (tracing.TRACEPARENT_KEY, traceparent))
    return tuple((name, value) for name, value in added if value and name not in names)


class _Channel(grpc.aio.Channel):
    """gRPC's channel with `_Callable`s around its multi-callables."""

    def __init__(self, inner: grpc.aio.Channel) -> None:
        self._inner = inner

    async def __aenter__(self) -> "_Channel":
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._inner.__aexit__(*error)

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; running calls get `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the connectivity."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the connectivity is another one."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when a connection stands."""
        await self._inner.channel_ready()

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns the RPC."""
        return _Callable(self._inner.unary_unary(method, *arguments, **options), method, is_unary=True)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns the RPC."""
        return _Callable(self._inner.unary_stream(method, *arguments, **options), method, is_unary=False)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns the RPC."""
        return _Callable(self._inner.stream_unary(method, *arguments, **options), method, is_unary=False)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns the RPC."""
        return _Callable(self._inner.stream_stream(method, *arguments, **options), method, is_unary=False)
