"""The gRPC server of a service: its RPCs behind the interceptors, health, reflection, and an orderly end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace_chassis import keys
from headrace_chassis.idempotency import RequestHasher
from headrace_chassis.interceptors.authentication import authentication
from headrace_chassis.interceptors.chain import Interceptor, compose
from headrace_chassis.interceptors.deadline import DEFAULT_SECONDS, deadline
from headrace_chassis.interceptors.errors import errors
from headrace_chassis.interceptors.idempotency import idempotency
from headrace_chassis.interceptors.logging import logging
from headrace_chassis.interceptors.metrics import metrics
from headrace_chassis.interceptors.request_id import request_id
from headrace_chassis.interceptors.role import role
from headrace_chassis.interceptors.tracing import tracing
from headrace_chassis.interceptors.validation import validation
from headrace_chassis.methods import ContractError, Method, methods_of
from headrace_chassis.settings import ServerSettings
from headrace_chassis.statuses import MAXIMUM_METADATA
from headrace_chassis.verification import TokenVerifier

_log = structlog.get_logger(__name__)

Service = tuple[ServiceDescriptor, Callable[[Any, Any], None], object]
"""A service's descriptor, the generated `add_…_to_server`, and the implementation."""

MAXIMUM_MESSAGE = 16 * 1024 * 1024
"""The largest message that is taken or sent, in bytes."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAXIMUM_MESSAGE),
    ("grpc.max_send_message_length", MAXIMUM_MESSAGE),
    ("grpc.max_metadata_size", MAXIMUM_METADATA),
    # A client that vanished without a word (a cut cable, a stopped machine) is noticed within 30 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # A second server on the port is a mistake, not a way to share the load.
    ("grpc.so_reuseport", 0),
)


class GrpcServer:
    """Serves services on one port.

    Raises ContractError when it is made with an RPC that declares no role or is not implemented, ValueError
    when the key in CURSOR_KEY_FILE is too short. `on_drain`
    is called when the server begins to drain, so that a service can end its long streams.
    """

    def __init__(
        self,
        settings: ServerSettings,
        verifier: TokenVerifier,
        services: Sequence[Service],
        *,
        default_deadline: float = DEFAULT_SECONDS,
        on_drain: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._settings = settings
        self._verifier = verifier
        self._on_drain = tuple(on_drain)
        self._names = [descriptor.full_name for descriptor, _, _ in services]
        interceptors: list[Interceptor] = [
            request_id,
            tracing,
            metrics,
            logging,
            errors,
            authentication(verifier),
            role,
            deadline(default_deadline),
            validation,
            idempotency(RequestHasher(keys.read_shared("CURSOR_KEY_FILE", settings.cursor_key_file))),
        ]
        self._handlers = {service[0].full_name: _handlers(service, interceptors) for service in services}
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._port = 0
        self._draining = False

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before it was started."""
        return self._port

    async def start(self) -> None:
        """Reads the key sets, binds the port and serves; raises OSError when the port is taken."""
        await self._verifier.start()
        server = grpc.aio.server(options=SERVER_OPTIONS)
        for name, handlers in self._handlers.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            server.add_registered_method_handlers(name, handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.grpc_reflection:
            names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, server)
        try:
            self._port = server.add_insecure_port(self._settings.grpc_listen)
        except RuntimeError:
            raise OSError(f"GRPC_LISTEN: {self._settings.grpc_listen} cannot be listened on") from None
        await server.start()
        self._server = server
        await self.set_serving(True)
        _log.info("serving", services=self._names, port=self._port)

    async def set_serving(self, serving: bool) -> None:
        """Says over grpc.health.v1 whether calls are welcome, for each service and for the server as a
        whole."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def drain(self) -> None:
        """Says NOT_SERVING, takes no more calls, and waits for running ones, `drain_seconds` at the most."""
        if self._server is None or self._draining:
            return
        self._draining = True
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(tell() for tell in self._on_drain))
        await self._server.stop(self._settings.drain_seconds)

    async def stop(self) -> None:
        """Ends all calls at once. Stopping again does nothing."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


class _Recorder:
    """Stands where the generated `add_…_to_server` expects a server, and keeps what it would register."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Is called with the same handlers in another form."""

    def add_registered_method_handlers(self, _service: str, handlers: dict[str, Any]) -> None:
        """Keeps the handlers."""
        self.handlers.update(handlers)


def _handlers(service: Service, interceptors: Sequence[Interceptor]) -> dict[str, Any]:
    descriptor, add_to_server, implementation = service
    recorder = _Recorder()
    add_to_server(implementation, recorder)
    methods = methods_of(descriptor)
    if recorder.handlers.keys() != methods.keys():
        raise ContractError(f"{descriptor.full_name}: the registered RPCs are not those of the contract")
    return {
        name: _wrapped(methods[name], handler, interceptors) for name, handler in recorder.handlers.items()
    }


def _wrapped(method: Method, handler: Any, interceptors: Sequence[Interceptor]) -> Any:
    kind = {
        (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
        (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
        (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
        (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
    }
    attribute, build = kind[method.streams_requests, method.streams_responses]
    entry = compose(method, getattr(handler, attribute), interceptors)
    return build(entry, handler.request_deserializer, handler.response_serializer)
