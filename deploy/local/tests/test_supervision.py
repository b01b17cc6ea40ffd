"""A real supervisor over small processes: it starts, restarts, follows changes, and leaves nothing behind."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from headrace_local import leftovers
from headrace_local.home import Home
from headrace_local.processes import STACK_MARK, Process
from headrace_local.supervision import Supervisor


def process(home: Home, name: str, seconds: int = 1000) -> Process:
    """Something that runs until it is stopped."""
    return Process(
        name=name, arguments=["/bin/sleep", str(seconds)], environment={STACK_MARK: str(home.root)}
    )


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for what is bound to happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def pid(home: Home, name: str) -> int:
    """The id in the pid file; 0 where there is none."""
    path = home.pid_file(name)
    return int(path.read_text()) if path.exists() else 0


@pytest.fixture
def supervisor(home: Home) -> Iterator[Supervisor]:
    """A supervisor of two processes."""
    running = Supervisor(home)
    running.write([process(home, "metadata"), process(home, "gateway")])
    running.start()
    until(lambda: pid(home, "metadata") > 0 and pid(home, "gateway") > 0)
    yield running
    running.shut_down()
    leftovers.wait(home)
    leftovers.end(home)


def test_a_process_that_dies_is_started_again(home: Home, supervisor: Supervisor) -> None:
    first, other = pid(home, "metadata"), pid(home, "gateway")
    os.kill(first, signal.SIGKILL)
    until(lambda: pid(home, "metadata") != first)
    assert pid(home, "gateway") == other


def test_only_what_changed_is_restarted(home: Home, supervisor: Supervisor) -> None:
    first, other = pid(home, "metadata"), pid(home, "gateway")
    changed = supervisor.write([process(home, "metadata", 2000), process(home, "gateway")])
    assert changed == {"metadata"}
    supervisor.adopt(changed)
    until(lambda: pid(home, "metadata") != first)
    assert pid(home, "gateway") == other


def test_a_new_process_starts_and_one_that_is_gone_stops(home: Home, supervisor: Supervisor) -> None:
    supervisor.adopt(supervisor.write([process(home, "metadata"), process(home, "worker")]))
    until(lambda: pid(home, "worker") > 0)
    assert {standing.name for standing in supervisor.standings() or []} == {"metadata", "worker"}


def test_shutting_down_leaves_no_process(home: Home, supervisor: Supervisor) -> None:
    assert len(leftovers.find(home)) == 3
    assert supervisor.shut_down()
    leftovers.wait(home)
    assert leftovers.find(home) == []
    assert supervisor.standings() is None
    assert not supervisor.shut_down()


def test_orphans_of_a_killed_supervisor_are_found_and_ended(home: Home, supervisor: Supervisor) -> None:
    os.kill(pid(home, "supervisord"), signal.SIGKILL)
    until(lambda: supervisor.standings() is None)
    assert {found.pid for found in leftovers.find(home)} == {pid(home, "metadata"), pid(home, "gateway")}
    assert leftovers.end(home)
    assert leftovers.find(home) == []


def test_a_stale_pid_file_harms_nobody(home: Home, supervisor: Supervisor) -> None:
    supervisor.shut_down()
    leftovers.wait(home)
    home.pid_file("supervisord").write_text(f"{os.getpid()}\n")  # this process has that number now
    assert leftovers.find(home) == []
    assert not leftovers.end(home)


def test_no_environment_of_the_caller_reaches_a_process(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere-else")
    running = Supervisor(home)
    running.write([process(home, "metadata")])
    running.start()
    try:
        until(lambda: pid(home, "metadata") > 0)
        found = {entry.pid: entry for entry in leftovers.find(home)}[pid(home, "metadata")]
        until(lambda: found.name() == "sleep")
        assert found.environ() == {STACK_MARK: str(home.root)}
    finally:
        running.shut_down()
        leftovers.wait(home)
