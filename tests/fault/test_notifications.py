"""kill -9 of whoever sends notifications: each is told at least once, and its id tells repeats."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .cluster import Cluster, until
from .striking import await_fired
from .submitting import Submitted, persistent

RUNS = 20
NOTIFIED = """
version: 1
sources: [{{id: noop, values: [{{x: 1}}]}}]
sinks: [{{discard: true}}]
notifications: [{{on: [SUCCESS], type: WEBHOOK, target: "{url}"}}]
"""
LEASE_SECONDS = 90
"""How long what a dead process was sending is left alone."""


class Receiver(ThreadingHTTPServer):
    """Remembers what it was told: the id of each message, and the run that it is about."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.heard.append((self.headers["webhook-id"], body["data"]["runId"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """It listens."""
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.long
@pytest.mark.parametrize("point", ["execution.notify.claimed", "execution.notify.sent"])
def test_no_notification_is_lost_with_its_sender(cluster: Cluster, receiver: Receiver, point: str) -> None:
    with cluster.client() as client:
        post = persistent(client, Submitted())  # who is asked may be killed before it has answered
        body = {"name": f"told-{point}", "yamlDefinition": NOTIFIED.format(url=receiver.url)}
        pipeline = post("pipelines", body)["id"]
        cluster.arm(point, "kill 3")
        runs = {post(f"pipelines/{pipeline}/run", {})["runId"] for _ in range(RUNS)}
    await_fired(cluster, point)

    until(lambda: {run for _, run in receiver.heard} == runs, "each run is told", 4 * LEASE_SECONDS)
    until(
        lambda: cluster.sql("execution", "SELECT count(*) FROM deliveries") == [(0,)],
        "nothing waits to be told",
        2 * LEASE_SECONDS,
    )
    assert len(set(receiver.heard)) == RUNS, "one id a run, however often it is told"
    print(f"told {Counter(Counter(receiver.heard).values())} times")
