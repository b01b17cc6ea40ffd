"""Looking at the live systems behind connections, by a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace_chassis.identity import Principal

from headrace_metadata.application.execution import Execution, UnsoundAnswer
from headrace_metadata.domain.connections import Connection, ConnectionType
from headrace_metadata.errors import SystemNotReadable

_NO_SYSTEM = "NO_SYSTEM"
_LEADS_NOWHERE = "a connection of type SECRET holds a secret and leads to no system"


@dataclass(frozen=True)
class Tables:
    """A page of tables as the worker told them, and the last one's name where there are more."""

    tables: Sequence[dict[str, Any]]
    after: str | None


class ConnectionProbes:
    """Asks execution to have a worker look.

    Raises what execution raises: NO_WORKER where no worker took it in time, UNAVAILABLE while execution is
    away or the answer is unsound.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    async def test(self, principal: Principal, connection: Connection) -> dict[str, Any]:
        """What a worker says of connecting and logging in."""
        if connection.endpoint.type is ConnectionType.SECRET:
            return {"success": False, "code": _NO_SYSTEM, "message": _LEADS_NOWHERE}
        answer = await self._execution.probe(
            "TEST", principal.tenant, principal.acts_as, connection.workspace_id, connection.id
        )
        if "success" not in answer:
            raise UnsoundAnswer
        return answer

    async def tables(self, principal: Principal, connection: Connection, limit: int, after: str) -> Tables:
        """A page of the system's tables.

        Raises:
            SystemNotReadable: the system could not be reached or did not let the user in.
        """
        if connection.endpoint.type is ConnectionType.SECRET:
            raise SystemNotReadable(_NO_SYSTEM, "CONFIGURATION", _LEADS_NOWHERE)
        answer = await self._execution.probe(
            "TABLES",
            principal.tenant,
            principal.acts_as,
            connection.workspace_id,
            connection.id,
            limit=limit,
            after=after,
        )
        if error := answer.get("error"):
            raise SystemNotReadable(error["code"], error["class"], error["message"])
        if not isinstance(answer.get("tables"), list):
            raise UnsoundAnswer
        return Tables(answer["tables"], answer.get("after"))
