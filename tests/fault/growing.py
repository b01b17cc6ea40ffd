"""A table of the user's whose writers commit out of order."""

import asyncio
import contextlib
import random
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import asyncpg

from .cluster import AWAY, Cluster

_WRITERS = 3
NEW = """
sources: [{id: read, connection: WAREHOUSE, table: GROWING, incremental: {cursor: at}}]
sinks: [{id: load, connection: WAREHOUSE, table: TABLE, MODE}]
"""
"""Loads what is new of the table, in some mode."""


class Growing:
    """Grows while the block lasts: by transactions that overlap, some of which are undone. A row bears the
    time at which its transaction began, and can be seen when that has ended."""

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        self.table = f"growing_{uuid.uuid4().hex[:12]}"
        self._cluster = cluster
        self._dice = dice
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._threads: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._cluster.sql(
            "warehouse",
            f"CREATE TABLE {self.table} "
            "(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
        )
        self._cluster.sql("warehouse", f"GRANT ALL ON {self.table} TO warehouse")
        self._threads = [self._pool.submit(self._write) for _ in range(_WRITERS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.result()
        self._pool.shutdown()

    def _write(self) -> None:
        while not self._ended.is_set():
            # The server was killed; what was not committed is gone.
            with contextlib.suppress(*AWAY):
                asyncio.run(self._write_on())

    async def _write_on(self) -> None:
        connection = await asyncpg.connect(**self._cluster.superuser("warehouse"))
        try:
            while not self._ended.is_set():
                await connection.execute("BEGIN")
                for _ in range(self._dice.randint(1, 3)):
                    await connection.execute(f"INSERT INTO {self.table} DEFAULT VALUES")
                    await asyncio.sleep(self._dice.uniform(0, 0.1))
                await connection.execute("COMMIT" if self._dice.random() < 0.9 else "ROLLBACK")
                await asyncio.sleep(self._dice.uniform(0, 0.1))
        finally:
            connection.terminate()
