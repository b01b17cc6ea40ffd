"""The forwarder of OpenLineage events, put together where it is configured."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from headrace.metadata.v1 import definitions_pb2_grpc
from headrace_chassis.event_sources import OwnEvents
from headrace_chassis.forwarder import EventForwarder
from headrace_chassis.ids import uuid7
from headrace_chassis.service import Foundation
from headrace_outbound.guard import AddressGuard
from headrace_outbound.posting import GuardedPoster

from headrace_execution.config import ExecutionSettings
from headrace_execution.openlineage.endpoints import TIMEOUT_SECONDS, FileEndpoint, HttpEndpoint, file_path
from headrace_execution.openlineage.reporter import Endpoint, LineageReporter
from headrace_execution.store.port import Store

NAME = "execution.openlineage"

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_PORTS = {"postgresql": 5432, "postgres": 5432, "nats": 4222}


def lineage_forwarder(
    settings: ExecutionSettings,
    base: Foundation,
    store: Store,
    metadata: "definitions_pb2_grpc.DefinitionServiceAsyncStub",
) -> EventForwarder | None:
    """What hands runs to OPENLINEAGE_URL; None where that is not set."""
    if settings.openlineage_url is None:
        return None
    reporter = LineageReporter(
        store,
        metadata,
        base.tokens,
        _endpoint(settings, settings.openlineage_url),
        settings.openlineage_namespace,
    )
    return EventForwarder(base.db, NAME, OwnEvents(base.name, base.log), reporter, uuid7(), bus=base.bus)


def _endpoint(settings: ExecutionSettings, url: str) -> Endpoint:
    path = file_path(url)
    if path is not None:
        return FileEndpoint(path)
    # The operator has named this address, and may mean one of a private network.
    guard = AddressGuard(
        allow_loopback=True, allowed_networks=_EVERYWHERE, denied_endpoints=tuple(_own_endpoints(settings))
    )
    # Its connections are closed after each call, so that there is nothing to close in the end.
    return HttpEndpoint(url, settings.openlineage_api_key_file, GuardedPoster(guard, timeout=TIMEOUT_SECONDS))


def _own_endpoints(settings: ExecutionSettings) -> Iterator[tuple[str, int]]:
    for url in (settings.database_url, settings.nats_url):
        parts = urlsplit(url or "")
        if parts.hostname:
            yield parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
