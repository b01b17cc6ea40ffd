"""NATS away, forgetful, or repeating everything: the outcome is the same, only later."""

import asyncio
import random
import shutil
import threading
import time

import nats
import pytest
from headrace_local import broker
from nats.aio.msg import Msg

from .checking import Reference, check_all
from .cluster import OURS, Cluster, until
from .submitting import SteadyLoad
from .workload import Places


def test_nats_away_and_wiped(cluster: Cluster, places: Places, reference: Reference) -> None:
    away_and_wiped(cluster, places, reference, seconds=3, runs=20)


@pytest.mark.long
def test_nats_away_for_a_minute_and_wiped(cluster: Cluster, places: Places, reference: Reference) -> None:
    away_and_wiped(cluster, places, reference, seconds=60, runs=120)


def away_and_wiped(
    cluster: Cluster, places: Places, reference: Reference, *, seconds: float, runs: int
) -> None:
    """Stopped while runs are accepted and executed; what it had stored is gone when it comes back."""
    before = cluster.pids(*OURS)
    with SteadyLoad(cluster, places, at_least=runs) as load:
        cluster.halt("nats")
        before_it = len(load.submitted.runs)
        time.sleep(seconds)  # the fault is that it is away for so long
        load.check()
        until(lambda: len(load.submitted.runs) > before_it, "runs are accepted without NATS")
        accepted = len(load.submitted.runs) - before_it
        shutil.rmtree(cluster.home.data / "nats")
        cluster.resume("nats")

    check_all(cluster, load.submitted, reference)
    assert cluster.pids(*OURS) == before, "no process was restarted"
    print(f"{accepted} runs accepted while NATS was away, {len(load.submitted.runs)} in all")


@pytest.mark.long
def test_messages_tripled_reordered_and_delayed(
    cluster: Cluster, places: Places, reference: Reference
) -> None:
    with Echo(cluster) as echo, SteadyLoad(cluster, places, at_least=100) as load:
        pass

    check_all(cluster, load.submitted, reference)
    assert echo.repeated > 100
    print(f"{echo.repeated} messages repeated, {len(load.submitted.runs)} runs")


class Echo:
    """Repeats every message of Headrace twice, each after a wait of its own of up to five seconds."""

    def __init__(self, cluster: Cluster) -> None:
        self._url = broker.url(cluster.ports, cluster.credentials)
        self._stop = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.repeated = 0

    def __enter__(self) -> "Echo":
        self._thread.start()
        assert self._listening.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        client = await nats.connect(self._url)
        waiting: set[asyncio.Task[None]] = set()

        async def repeat(message: Msg) -> None:
            await asyncio.sleep(random.uniform(0, 5))
            headers = {**(message.headers or {}), "Echo": "1"}
            headers.pop("Nats-Msg-Id", None)  # or the stream would see through it
            headers.pop("Nats-Expected-Stream", None)
            await client.publish(message.subject, message.data, headers=headers)
            self.repeated += 1

        async def heard(message: Msg) -> None:
            if not (message.headers or {}).get("Echo"):
                for _ in range(2):
                    task = asyncio.create_task(repeat(message))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)

        await client.subscribe("headrace.>", cb=heard)
        await client.flush()
        self._listening.set()
        await asyncio.to_thread(self._stop.wait)
        await asyncio.gather(*waiting)
        await client.close()
