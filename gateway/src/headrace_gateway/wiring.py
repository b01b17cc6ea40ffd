"""Builds the gateway, leaves first. The only place that constructs its parts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import grpc
import headrace
import structlog
from headrace_chassis.channels import open_channel
from headrace_chassis.lifecycle import Stop
from headrace_chassis.observability import logs, tracing
from headrace_chassis.observability.metrics import OperationsServer
from headrace_chassis.slots import StreamSlots
from headrace_chassis.verification import TokenVerifier

from .app import Gateway
from .config import GatewaySettings
from .contract import Contract, load_contract
from .health import Readiness
from .http.api_keys import ApiKeyExchange
from .http.bodies import BodyLimits, BodyReader
from .http.callers import CallerChecks
from .http.cors import CrossOrigins
from .http.exchange import Endpoint
from .http.ratelimit import RateLimiter
from .http.request_reader import Codecs
from .http.rpc import RpcEndpoint
from .http.rpc_either import EitherEndpoint
from .http.rpc_stream import StreamEndpoint
from .observation import RequestObserver
from .openapi.document import openapi_document
from .openapi.text import as_json, as_yaml
from .pages import pages_app
from .routes import Route, of_owners, routes_of
from .server import HttpServer
from .socket_routes import sockets_of, sockets_of_owners
from .sockets.endpoint import SocketEndpoint
from .sockets.gate import SocketGate
from .sockets.tickets import TicketOffice

_log = structlog.get_logger(__name__)

_STREAM_WINDOW_BYTES: Final = 256 * 1024
"""How much of one stream may arrive from a service before its client has taken it."""


@dataclass(frozen=True)
class Parts:
    """A gateway that is built and not yet served."""

    app: Gateway
    readiness: Readiness
    verifier: TokenVerifier
    channels: tuple[grpc.aio.Channel, ...]


def build(settings: GatewaySettings, targets: Mapping[str, str], contract: Contract | None = None) -> Parts:
    """Returns the gateway to the services at these addresses, by the name of their process.

    Raises ContractError, TemplateError, RouteConflictError and UnsupportedTypeError where the contracts
    cannot be served as they stand. The contract is that of the installation unless another one is given.
    """
    contract = contract or load_contract(headrace.descriptor_set())
    routes = of_owners(routes_of(contract), targets)
    sockets = sockets_of_owners(sockets_of(contract), targets)
    channels = {
        name: [open_channel(target, own_connection=True) for _ in range(settings.channels_per_target)]
        for name, target in targets.items()
    }
    readiness = Readiness({name: opened[0] for name, opened in channels.items()})
    codecs = Codecs()
    bodies = BodyReader(
        BodyLimits(settings.max_body_bytes, settings.body_timeout_seconds, settings.max_concurrent_bodies)
    )
    deadline = settings.default_deadline_seconds
    slots = StreamSlots(settings.max_streams, settings.max_streams_per_caller)
    # Streams have connections of their own with small windows: their number bounds the memory they take.
    streams = {
        name: open_channel(targets[name], own_connection=True, window_bytes=_STREAM_WINDOW_BYTES)
        for name in sorted(
            {
                route.owner
                for route in (*routes, *(socket.route for socket in sockets))
                if route.is_streamed or route.stream
            }
        )
    }

    def endpoint(route: Route) -> Endpoint:
        if route.is_streamed:
            return StreamEndpoint(route, streams[route.owner], codecs, bodies, deadline, slots)
        at_once = RpcEndpoint(route, channels[route.owner], codecs, bodies, deadline)
        if route.stream is None:
            return at_once
        stream = StreamEndpoint(route.stream, streams[route.owner], codecs, bodies, deadline, slots)
        return EitherEndpoint(route, at_once, stream)

    endpoints = [endpoint(route) for route in routes]
    document = openapi_document(routes, sockets, contract.comments)
    verifier = TokenVerifier(settings)
    callers = CallerChecks(verifier, _api_keys(channels, verifier))
    limiter = RateLimiter(settings.rate_limit_per_second, settings.rate_limit_burst, time.monotonic)
    gate = SocketGate(
        [
            SocketEndpoint(
                socket,
                streams[socket.route.owner],
                codecs,
                bodies,
                None
                if socket.ticket_rpc is None
                else TicketOffice(socket, socket.ticket_rpc, channels[socket.route.owner][0], verifier),
            )
            for socket in sockets
        ],
        callers,
        limiter,
        slots,
        deadline,
    )
    app = Gateway(
        endpoints,
        gate,
        pages_app(as_yaml(document), as_json(document), readiness),
        callers,
        limiter,
        CrossOrigins(settings.cors_origins),
        RequestObserver(settings.access_log),
        settings.gzip_minimum_bytes,
        settings.stall_seconds,
    )
    opened = (*streams.values(), *(channel for several in channels.values() for channel in several))
    return Parts(app, readiness, verifier, opened)


def _api_keys(
    channels: Mapping[str, list[grpc.aio.Channel]], verifier: TokenVerifier
) -> ApiKeyExchange | None:
    """The exchange of API keys at the service that owns them, where it is served."""
    owners = channels.get("metadata")
    return ApiKeyExchange(owners[0], verifier, time.monotonic) if owners else None


async def serve(settings: GatewaySettings, stop: Stop) -> None:
    """Serves until it is told to stop; then drains: requests first, then the channels that they use."""
    logs.configure("gateway", level=settings.log_level, form=settings.log_format)
    if settings.otel_exporter_otlp_endpoint is not None:
        tracing.configure("gateway", settings.otel_exporter_otlp_endpoint)
    parts = build(settings, settings.targets())
    async with AsyncExitStack() as stack:
        stack.callback(tracing.shut_down)
        for channel in parts.channels:
            stack.push_async_callback(channel.close)
        if settings.metrics_listen is not None:
            operations = OperationsServer(settings.metrics_listen, parts.readiness.checks())
            await operations.start()
            stack.push_async_callback(operations.stop)
        await parts.verifier.start()
        server = HttpServer(
            parts.app,
            settings.http_listen,
            settings.header_timeout_seconds,
            settings.drain_seconds,
            settings.ping_seconds,
        )
        await server.start()
        stack.push_async_callback(server.drain)
        _log.info("serving", port=server.port, services=sorted(settings.targets()))
        await stop.wait()
        parts.readiness.drain()
        if settings.metrics_listen is not None:
            operations.drain()
