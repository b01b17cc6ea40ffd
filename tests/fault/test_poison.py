"""A stage that kills its worker each time it is tried is parked with the reason; its neighbours go on."""

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from headrace_local.testing import demand

from .checking import Reference, await_end, check_all, check_bookkeeping
from .cluster import MAX_LOST_WORKERS, Cluster
from .proxy import Connection
from .submitting import SteadyLoad, submit
from .workload import Places, create, posting

POISON = """
sources: [{id: read, connection: CONNECTION, table: t}]
sinks: [{id: load, connection: WAREHOUSE, table: TABLE}]
"""


class Trap:
    """A server that kills whoever connects to it: the stage process alone, or its whole worker."""

    def __init__(self, cluster: Cluster, *, whole_worker: bool) -> None:
        self._cluster = cluster
        self._whole_worker = whole_worker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.killed = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Kills no more."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            pid = Connection(client, client).peer
            worker = self._cluster.worker_of(pid) if pid is not None else None
            if pid is not None and worker is not None:
                self.killed += 1
                if self._whole_worker:
                    self._cluster.kill(worker)
                else:
                    self._cluster.kill_process(pid)
            client.close()


@pytest.fixture
def trap(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Trap]:
    """A trap for the stage process, or for the worker."""
    trap = Trap(cluster, whole_worker=request.param)
    yield trap
    trap.close()


@pytest.mark.parametrize(
    "trap",
    [pytest.param(False, id="its process"), pytest.param(True, id="its worker", marks=pytest.mark.long)],
    indirect=True,
)
def test_a_stage_that_kills_is_parked(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference, trap: Trap
) -> None:
    name = f"trap-{trap.port}"
    body = {"name": name, "type": "POSTGRESQL", "host": "127.0.0.1", "port": trap.port, "username": "u"}
    demand(admin.post("connections", json={**body, "database": "d", "secret": "s"}), 201)
    poison = create(posting(admin), places, "poison", POISON.replace("CONNECTION", name))
    with SteadyLoad(cluster, places, at_least=7, at_most=14) as load:
        submitted = submit(cluster, [poison], each=1)
        states = await_end(cluster, submitted)

    (run,) = submitted.runs
    status = demand(admin.get(f"runs/{run}"), 200)
    assert states == {"FAILED": 1}
    assert trap.killed == MAX_LOST_WORKERS, "it was tried so often, and no more"
    assert f"parked after {MAX_LOST_WORKERS} attempts" in str(status["errors"]), status["errors"]
    check_bookkeeping(cluster, submitted)
    check_all(cluster, load.submitted, reference)
