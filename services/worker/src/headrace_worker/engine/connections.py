"""The connections of a stage, as the server resolved them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

from headrace.execution.v1 import workers_pb2
from headrace_connectors.api import Connection, Secret
from headrace_connectors.model import ConnectionType

from headrace_worker.engine.failure import CONFIGURATION, Failure, TaskFailed

_TYPES = get_args(ConnectionType)


class Connections:
    """Connections by the word that the definition uses for them."""

    def __init__(self, resolved: Mapping[str, workers_pb2.WorkerConnection]) -> None:
        self._resolved = resolved

    @staticmethod
    def of(response: workers_pb2.ResolveSecretsResponse) -> Connections:
        """Those of an answer of the server."""
        return Connections({each.reference: each for each in response.connections})

    @property
    def secrets(self) -> list[str]:
        """What must not leave the process."""
        return [each.secret for each in self._resolved.values() if each.secret]

    def get(self, task: str, reference: str) -> Connection:
        """The connection that a task refers to. Raises TaskFailed where there is none."""
        found = self._resolved.get(reference)
        if found is None:
            why = f"the workspace has no connection {reference!r}"
            raise TaskFailed(
                task, Failure("CONNECTION_NOT_FOUND", CONFIGURATION, why, {"connection": reference})
            )
        if found.type not in _TYPES:
            why = f"connection {reference!r}: this worker has no connector for type {found.type!r}"
            raise TaskFailed(
                task, Failure("CONNECTOR_NOT_AVAILABLE", CONFIGURATION, why, {"connection": reference})
            )
        return Connection(
            id=found.id,
            name=found.name,
            type=cast("ConnectionType", found.type),
            host=found.host or None,
            port=found.port or None,
            database=found.database or None,
            username=found.username or None,
            password=Secret(found.secret) if found.secret else None,
            options=dict(found.options),
            path=found.path or None,
        )
