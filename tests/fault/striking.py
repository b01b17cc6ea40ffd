"""Kills processes at named points and at random moments."""

import random
import signal
from collections.abc import Callable, Sequence

from .cluster import OURS, Cluster, until

SERVICE_POINTS = (
    "gateway.forward.before",
    "gateway.forward.after",
    "metadata.write.before",
    "metadata.write.before_commit",
    "metadata.write.committed",
    "execution.accept.before",
    "execution.accept.outbox_written",
    "execution.accept.committed",
    "execution.claim.before",
    "execution.claim.before_commit",
    "execution.claim.committed",
    "execution.assign.before_send",
    "execution.assign.sent",
    "execution.result.received",
    "execution.fold.before_commit",
    "execution.fold.committed",
    "execution.signal.before_commit",
    "execution.signal.committed",
    "outbox.sequence.before_commit",
    "outbox.publish.before",
    "outbox.publish.after",
    "forwarder.send.before",
    "forwarder.send.after",
    "worker.assignment.received",
    "worker.result.before_send",
    "worker.result.sent",
)
"""Points in processes that the supervisor watches: they are killed right there."""

STAGE_POINTS = (
    "worker.stage.claimed",
    "worker.load.copying",
    "worker.checks.before",
    "worker.checks.after",
    "worker.commit.before",
    "worker.commit.after",
)
"""Points in stage processes: they stand still there until their whole worker is killed, or die alone."""


def strike_service(cluster: Cluster, point: str, check: Callable[[], None], passage: int = 1) -> str:
    """Kills the process that comes to a point next; returns its name when it is started again.

    The next one may be killed while this one is not ready yet, so that both replicas are away now and then.
    """
    before = {name: cluster.pid(name) for name in OURS}
    cluster.arm(point, f"kill {passage}")
    pid = await_fired(cluster, point, check)
    (name,) = [name for name, known in before.items() if known == pid]
    until(lambda: cluster.pid(name) != pid, f"{name} is started again")
    cluster.disarm()
    return name


def strike_services(cluster: Cluster, points: Sequence[str], check: Callable[[], None]) -> None:
    """Kills whatever process comes to each of these points, all as soon as it happens, and waits until all
    are ready again.
    """
    for point in points:
        cluster.arm(point, "kill")
    for point in points:
        await_fired(cluster, point, check)
    cluster.await_ready()
    cluster.disarm()


def strike_stage(cluster: Cluster, point: str, check: Callable[[], None], *, alone: bool) -> None:
    """Kills the stage process that comes to a point next, alone or with its worker."""
    cluster.arm(point, "kill" if alone else "stop")
    pid = await_fired(cluster, point, check)
    worker = None if alone else cluster.worker_of(pid)
    if worker is not None:
        main = cluster.pid(worker)
        cluster.kill(worker)
        until(lambda: cluster.pid(worker) != main, f"{worker} is started again")
    cluster.disarm()


def await_fired(cluster: Cluster, point: str, check: Callable[[], None] = lambda: None) -> int:
    """The id of the process that came to the point."""

    def look() -> int | None:
        check()
        return cluster.fired(point)

    pid = until(look, f"a process comes to {point}")
    assert pid is not None
    return pid


def strike_at_random(cluster: Cluster, dice: random.Random, names: tuple[str, ...]) -> str:
    """Kills one of these, whatever it does just now, and waits until there is another."""
    name = dice.choice(names)
    pid = cluster.pid(name)
    cluster.signal(name, signal.SIGKILL)
    until(lambda: cluster.pid(name) != pid, f"{name} is started again")
    return name
