"""Moves stored secrets to the active key of the keyring."""

import structlog
from headrace_chassis.agents import Agent
from headrace_chassis.database import Database
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.keyring import Keyring
from headrace_metadata.store import connections as store

_log = structlog.get_logger(__name__)
_BATCH = 100


class SecretRotator(Agent):
    """Seals secrets of older keys anew, a batch a transaction; any number of replicas share them.

    When it has nothing left to do, a key that is no longer active may be taken out of the keyring.
    """

    name = "secret_rotator"
    interval_seconds = 300.0

    def __init__(self, db: Database, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring

    async def run_once(self) -> bool:
        """Seals one batch; True where there may be more."""
        moved = await self._db.run(self._rotate)
        if moved:
            _log.info("secrets sealed anew", count=moved, key_id=self._keyring.active)
        return moved == _BATCH

    async def _rotate(self, conn: AsyncConnection) -> int:
        rows = await store.lock_sealed_otherwise(conn, self._keyring.active, _BATCH)
        for row in rows:
            if row.sealed is not None:
                connection = row.connection
                secret = self._keyring.open(row.sealed, connection.tenant, connection.id)
                sealed = self._keyring.seal(secret, connection.tenant, connection.id)
                await store.reseal(conn, connection, sealed)
        return len(rows)
