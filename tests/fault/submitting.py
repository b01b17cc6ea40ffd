"""Submits runs as a careful client does: each under an Idempotency-Key, repeated until it is answered."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from .cluster import Cluster
from .workload import KINDS, Pipeline, Places, Post, create, start

_RETRIED = {429, 503, 504}
_ANSWERED = {201, 202}
_SUBMIT_SECONDS = 300.0
_PAUSE_SECONDS = 0.2


@dataclass
class Submitted:
    """What came of submitting."""

    runs: dict[str, Pipeline] = field(default_factory=dict)
    """Accepted runs: those whose submission was answered with 202."""
    answers: Counter[str] = field(default_factory=Counter)
    """How often each status, or kind of broken connection, was met."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, run: str, pipeline: Pipeline) -> None:
        """A run was accepted."""
        with self.lock:
            assert run not in self.runs, "two submissions were answered with the same run"
            self.runs[run] = pipeline


def submit(cluster: Cluster, pipelines: Sequence[Pipeline], *, each: int, threads: int = 6) -> Submitted:
    """Starts so many runs of each pipeline, several at a time; returns when all are accepted."""
    done = Submitted()
    orders = [pipeline for _ in range(each) for pipeline in pipelines]
    with cluster.client("editor") as client, ThreadPoolExecutor(threads) as pool:
        post = persistent(client, done)

        def one(pipeline: Pipeline) -> None:
            done.add(start(post, pipeline), pipeline)

        for finished in [pool.submit(one, pipeline) for pipeline in orders]:
            finished.result()
    return done


def persistent(client: httpx.Client, told: Submitted) -> Post:
    """POSTs until there is an answer that says what happened, always under the same key."""

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = insist(client, told, path, body)
        if answer.status_code not in _ANSWERED:
            raise AssertionError(f"POST {path} answered {answer.status_code}: {answer.text[:1000]}")
        return dict(answer.json())

    return post


def insist(client: httpx.Client, told: Submitted, path: str, body: dict[str, Any]) -> httpx.Response:
    """The answer to a POST that says what happened, be it a refusal."""
    key = str(uuid.uuid4())
    deadline = time.monotonic() + _SUBMIT_SECONDS
    while True:
        seen, answer = _once(client, path, body, key)
        with told.lock:
            told.answers[seen] += 1
        if answer is not None:
            return answer
        assert time.monotonic() < deadline, f"no answer in {_SUBMIT_SECONDS:g} s: {dict(told.answers)}"
        time.sleep(_PAUSE_SECONDS)


def _once(
    client: httpx.Client, path: str, body: dict[str, Any], key: str
) -> tuple[str, httpx.Response | None]:
    try:
        answer = client.post(path, json=body, headers={"Idempotency-Key": key})
    except httpx.TransportError as error:
        return type(error).__name__, None
    if answer.status_code in _RETRIED:
        if answer.status_code == 503:
            assert answer.headers.get("retry-after"), "a 503 says when to come again"
        return str(answer.status_code), None
    if answer.status_code == 409 and answer.json()["code"] == "IDEMPOTENCY_IN_FLIGHT":
        return "409 in flight", None
    return str(answer.status_code), answer


class SteadyLoad:
    """Creates pipelines of all kinds and runs them, while the block lasts and until there are enough, or as
    many as there may be at the most.

    Never more than `backlog` runs are unfinished at a time, so that the end does not take as long again.
    """

    def __init__(
        self,
        cluster: Cluster,
        places: Places,
        *,
        at_least: int,
        at_most: int | None = None,
        backlog: int = 40,
        threads: int = 4,
    ) -> None:
        self._cluster = cluster
        self._places = places
        self._at_least = at_least
        self._at_most = at_most
        self._backlog = backlog
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._turn = iter(range(1_000_000))
        self.submitted = Submitted()

    def __enter__(self) -> Self:
        self._loops = [self._pool.submit(self._loop) for _ in range(self._threads)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._at_least = 0
        self._ended.set()
        for loop in self._loops:
            loop.result()
        self._pool.shutdown()

    def check(self) -> None:
        """Raises what a thread of the load has met."""
        for loop in self._loops:
            if loop.done():
                loop.result()

    @property
    def _goes_on(self) -> bool:
        accepted = len(self.submitted.runs)
        if self._at_most is not None and accepted >= self._at_most:
            return False
        return not self._ended.is_set() or accepted < self._at_least

    def _loop(self) -> None:
        with self._cluster.client("editor") as client:
            post = persistent(client, self.submitted)
            while self._goes_on:
                with self.submitted.lock:
                    kind = KINDS[next(self._turn) % len(KINDS)]
                pipeline = create(post, self._places, kind)
                for _ in range(5):
                    self._await_room()
                    self.submitted.add(start(post, pipeline), pipeline)

    def _await_room(self) -> None:
        while self._goes_on:
            ((live,),) = self._cluster.sql(
                "execution", "SELECT count(*) FROM runs WHERE state IN ('PENDING', 'RUNNING')"
            )
            if live < self._backlog:
                return
            self._ended.wait(0.5) if not self._ended.is_set() else time.sleep(0.5)


def in_background(work: Callable[[], Any]) -> "Background":
    """Runs something in a thread."""
    return Background(work)


class Background:
    """Work in a thread; `result` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(work)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._future.done()

    def result(self, timeout: float = 600.0) -> Any:
        """What it returned."""
        try:
            return self._future.result(timeout)
        finally:
            self._pool.shutdown(wait=False)
