"""Runs that do not go straight to their end: cancelled at any moment, tried again, waiting for a signal, and
reading what is new of a table whose writers commit out of order. They go on while processes are killed."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import httpx

from .checking import await_end, check_bookkeeping, digest
from .cluster import Cluster, until
from .growing import NEW, Growing
from .submitting import Submitted, insist, persistent, submit
from .workload import CUSTOMERS, ORDERS, Pipeline, Places, create

_END_SECONDS = 900.0
_FINAL = ("COMPLETED", "FAILED", "CANCELLED")
APPROVED = "approved"

_NEW_WHEN_APPROVED = """
sources: [{id: read, connection: WAREHOUSE, table: GROWING, incremental: {cursor: at}}]
transformations: [{id: go, type: wait_for_signal, input: read, timeout: 1h}]
sinks: [{id: load, input: go, connection: WAREHOUSE, table: TABLE, mode: append}]
"""
_WHOLE = """
sources: [{id: read, connection: WAREHOUSE, table: orders}]
sinks: [{id: load, connection: WAREHOUSE, table: TABLE, mode: append}]
"""
_GATED = """
sources:
  - {id: read, connection: WAREHOUSE, table: customers}
  - {id: gate, connection: WAREHOUSE, table: TABLE_gate}
sinks:
  - {id: first, input: read, connection: WAREHOUSE, table: TABLE, mode: append}
  - {id: second, input: gate, connection: WAREHOUSE, table: TABLE_second, mode: append}
"""


class Mix:
    """Goes on while the block lasts, or for so many `rounds` of each kind, and brings what it has begun to an
    end; `verify` says whether all is right."""

    def __init__(self, cluster: Cluster, places: Places, *, rounds: int = 1_000_000) -> None:
        self._cluster = cluster
        self._places = places
        self._rounds = rounds
        self._dice = random.Random()
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(5)
        self._growing = Growing(cluster, self._dice)
        self._threads: list[Future[None]] = []
        self._incremental: list[Pipeline] = []
        self._gated: list[tuple[Pipeline, int]] = []
        self._chains: list[tuple[Pipeline, list[str]]] = []
        """Of the whole copies: a run and those that tried it again."""
        self.submitted = Submitted()
        self.seen: Counter[str] = Counter()
        """How often runs of each kind ended in which way."""

    def __enter__(self) -> Self:
        self._growing.__enter__()
        new = [self._new(mode) for mode in ("mode: append", "mode: merge, keys: [id]")]
        for work in (*new, self._approved, self._whole, self._tried_again):
            self._threads.append(self._pool.submit(work))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        try:
            for thread in self._threads:
                thread.result()
        finally:
            self._growing.__exit__(kind, error, trace)
        self._pool.shutdown()

    def check(self) -> None:
        """Raises what a thread has met."""
        for thread in self._threads:
            if thread.done():
                thread.result()

    def verify(self) -> None:
        """All that was accepted has ended, and the targets hold each row of the sources as often as they
        should."""
        await_end(self._cluster, self.submitted)
        last = submit(self._cluster, self._incremental, each=1)
        with self._cluster.client("editor") as client:
            for run, pipeline in last.runs.items():
                if pipeline.kind == APPROVED:
                    self._approve(client, run)
        assert await_end(self._cluster, last) == {"COMPLETED": len(self._incremental)}
        self.submitted.runs |= last.runs
        check_bookkeeping(self._cluster, self.submitted)
        for pipeline in self._incremental:
            assert digest(self._cluster, pipeline.table) == digest(self._cluster, self._growing.table), (
                pipeline
            )
        self._verify_chains()
        for pipeline, times in self._gated:
            found = self._rows(pipeline.table), self._rows(f"{pipeline.table}_second")
            assert found == (CUSTOMERS * times, times), pipeline

    def _verify_chains(self) -> None:
        """Of a run and those that try it again, one completes at the most, and it loads once."""
        rows = self._cluster.sql(
            "execution",
            "SELECT id::text FROM runs WHERE state = 'COMPLETED' AND id = ANY ($1::uuid[])",
            list(self.submitted.runs),
        )
        completed = {run for (run,) in rows}
        ends = Counter(len(completed.intersection(chain)) for _, chain in self._chains)
        assert set(ends) <= {0, 1}, ends
        for pipeline in {pipeline.id: pipeline for pipeline, _ in self._chains}.values():
            assert self._rows(pipeline.table) == ORDERS * ends[1], pipeline

    # -- the threads

    def _new(self, mode: str) -> Callable[[], None]:
        def work() -> None:
            with self._cluster.client("editor") as client:
                pipeline = self._create(client, "new", NEW.replace("MODE", mode))
                self._incremental.append(pipeline)
                for _ in self._turns():
                    self._chain(client, pipeline)

        return work

    def _whole(self) -> None:
        with self._cluster.client("editor") as client:
            pipeline = self._create(client, "whole", _WHOLE)
            for _ in self._turns():
                self._chains.append((pipeline, self._chain(client, pipeline)))

    def _approved(self) -> None:
        """Runs that wait for a signal, or for a cancel."""
        with self._cluster.client("editor") as client:
            pipeline = self._create(client, APPROVED, _NEW_WHEN_APPROVED)
            self._incremental.append(pipeline)
            for _ in self._turns():
                run = self._start(client, pipeline)
                if self._dice.random() < 0.3:
                    self._cancel_soon(client, run)
                self._approve(client, run)
                self._end(run, pipeline)

    def _tried_again(self) -> None:
        """Runs of which a part lands and another fails, until what is wrong has been mended."""
        with self._cluster.client("editor") as client:
            pipeline, times = self._create(client, "gated", _GATED), 0
            for _ in self._turns():
                run = self._start(client, pipeline)
                assert self._end(run, pipeline) == "FAILED"
                gate = f"{pipeline.table}_gate"
                # The server may be killed before it has answered, and is asked again then.
                self._cluster.sql("warehouse", f"CREATE TABLE IF NOT EXISTS {gate} AS SELECT 1 AS open")
                self._cluster.sql("warehouse", f"GRANT ALL ON {gate} TO warehouse")
                assert self._end(self._retry(client, run, pipeline), pipeline) == "COMPLETED"
                self._cluster.sql("warehouse", f"DROP TABLE IF EXISTS {gate}")
                times += 1
            self._gated.append((pipeline, times))

    def _turns(self) -> Iterator[int]:
        for turn in range(self._rounds):
            if self._ended.is_set():
                return
            yield turn

    # -- what they do

    def _create(self, client: httpx.Client, kind: str, text: str) -> Pipeline:
        post = persistent(client, self.submitted)
        return create(post, self._places, kind, text.replace("GROWING", self._growing.table))

    def _start(self, client: httpx.Client, pipeline: Pipeline) -> str:
        accepted = persistent(client, self.submitted)(f"pipelines/{pipeline.id}/run", {})
        self.submitted.add(accepted["runId"], pipeline)
        return str(accepted["runId"])

    def _retry(self, client: httpx.Client, run: str, pipeline: Pipeline) -> str:
        accepted = persistent(client, self.submitted)(f"runs/{run}/retry", {})
        self.submitted.add(accepted["runId"], pipeline)
        return str(accepted["runId"])

    def _chain(self, client: httpx.Client, pipeline: Pipeline) -> list[str]:
        """A run, which may be cancelled, and then perhaps tried again. Returns the ids."""
        chain = [self._start(client, pipeline)]
        while True:
            if self._dice.random() < 0.5:
                self._cancel_soon(client, chain[-1])
            state = self._end(chain[-1], pipeline)
            assert state in ("COMPLETED", "CANCELLED"), (pipeline, chain)
            if state == "COMPLETED" or self._dice.random() < 0.5:
                return chain
            chain.append(self._retry(client, chain[-1], pipeline))

    def _cancel_soon(self, client: httpx.Client, run: str) -> None:
        time.sleep(self._dice.uniform(0, 1))  # the moment is what is tried, nothing waits for it
        answer = insist(client, self.submitted, f"runs/{run}/cancel", {"reason": "a test wants it"})
        assert answer.status_code in (200, 409), answer.text

    def _approve(self, client: httpx.Client, run: str) -> None:
        """Sends the signal as soon as the run waits for it, unless it ends before."""

        def waits() -> bool:
            rows = self._cluster.sql(
                "execution",
                "SELECT r.state, EXISTS (SELECT FROM stages s WHERE s.run = r.id AND s.state = 'WAITING') "
                "FROM runs r WHERE r.id = $1::uuid",
                run,
            )
            return rows[0][0] in _FINAL or bool(rows[0][1])

        until(waits, f"run {run} waits for its signal", _END_SECONDS)
        answer = insist(client, self.submitted, f"runs/{run}/signal", {"signalName": "go", "data": {}})
        assert answer.status_code in (200, 202, 409), answer.text

    def _end(self, run: str, pipeline: Pipeline) -> str:
        states = await_end(self._cluster, Submitted({run: pipeline}), _END_SECONDS)
        (state,) = states
        self.seen[f"{pipeline.kind} {state}"] += 1
        return state

    def _rows(self, table: str) -> int:
        """How many rows there are; none in a table that nothing has landed in."""
        if self._cluster.sql("warehouse", "SELECT to_regclass($1)::text", table) == [(None,)]:
            return 0
        ((rows,),) = self._cluster.sql("warehouse", f"SELECT count(*) FROM {table}")
        return int(rows)
