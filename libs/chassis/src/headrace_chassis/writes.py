"""How servicers write: in a transaction, with the caller's idempotency key, and with the relay told
afterwards."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_chassis import faults
from headrace_chassis.database import Database
from headrace_chassis.idempotency import IdempotentWrites

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Writes:
    """Runs writes. `wake` is called after each commit, since there may be new events to publish. `service` is
    the first word of the fault points between which a write happens."""

    def __init__(self, service: str, db: Database, wake: Callable[[], None]) -> None:
        self._service = service
        self._db = db
        self._idempotent = IdempotentWrites(db)
        self._wake = wake

    async def keyed(
        self,
        response_type: type[M],
        apply: Callable[[AsyncConnection], Awaitable[M]],
        *,
        stored: Callable[[M], M] = lambda response: response,
    ) -> M:
        """A POST: what `apply` answers, or what it answered when the caller's idempotency key was first
        used. `stored` leaves out of the kept answer what is shown once."""
        response = await self._idempotent.run(response_type, self._watched(apply), stored=stored)
        faults.point(f"{self._service}.write.committed")
        self._wake()
        return response

    async def plain(self, apply: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """A PUT or DELETE, which may be repeated as it is."""
        result = await self._db.run(self._watched(apply))
        faults.point(f"{self._service}.write.committed")
        self._wake()
        return result

    def _watched(
        self, apply: Callable[[AsyncConnection], Awaitable[T]]
    ) -> Callable[[AsyncConnection], Awaitable[T]]:
        """The same work, between the points at which tests kill the process."""

        async def work(conn: AsyncConnection) -> T:
            faults.point(f"{self._service}.write.before")
            result = await apply(conn)
            faults.point(f"{self._service}.write.before_commit")
            return result

        return work
