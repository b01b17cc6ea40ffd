"""The stack itself: it heals, says what is in the way, stands beside others, and stops without a trace."""

import os
import signal
import socket
from collections.abc import Iterator

import httpx
import psutil
import pytest
from headrace_local import leftovers
from headrace_local.ports import find_free_port
from headrace_local.testing import StackUnderTest, demand, until

NAMES = {"postgres", "nats", "metadata", "execution", "scheduler", "worker", "gateway"}


@pytest.fixture(scope="module")
def second() -> Iterator[StackUnderTest]:
    """A stack beside the session's."""
    other = StackUnderTest()
    try:
        other.up()
        yield other
    finally:
        other.remove()


def pids(stack: StackUnderTest) -> dict[str, int]:
    """The process ids by name, supervisor included."""
    return {path.stem: int(path.read_text()) for path in stack.home.run.glob("*.pid")}


def test_two_stacks_stand_side_by_side(
    stack: StackUnderTest, second: StackUnderTest, admin: httpx.Client
) -> None:
    one, two = stack.running.ports.by_name, second.running.ports.by_name
    assert not set(one.values()) & set(two.values())
    with second.client() as client:
        assert demand(client.get("workspaces"), 200)["data"] != demand(admin.get("workspaces"), 200)["data"]
        token = stack.running.token("admin")
        refused = client.get("pipelines", headers={"Authorization": f"Bearer {token}"})
        assert refused.status_code == 401, "a token of one stack is nothing to another"


def test_starting_again_leaves_what_is_healthy_alone(second: StackUnderTest) -> None:
    before = pids(second)
    token = second.running.token("admin")
    second.up()
    assert pids(second) == before
    assert set(before) == NAMES | {"supervisord"}
    assert second.running.token("admin") != token, "tokens are renewed"
    assert second.command("status").returncode == 0


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_process_that_is_killed_comes_back_by_itself(second: StackUnderTest, name: str) -> None:
    before = pids(second)
    os.kill(before[name], signal.SIGKILL)
    until(
        lambda: {"pid": pids(second)[name], "status": second.command("status").returncode},
        lambda seen: seen["pid"] != before[name] and seen["status"] == 0,
    )
    with second.client() as client:
        demand(client.get("pipelines"), 200)


def test_a_half_dead_stack_is_healed(second: StackUnderTest) -> None:
    before = pids(second)
    os.kill(before["supervisord"], signal.SIGKILL)
    os.kill(before["execution"], signal.SIGKILL)
    os.kill(before["postgres"], signal.SIGKILL)
    psutil.wait_procs(
        [psutil.Process(before["supervisord"])] if psutil.pid_exists(before["supervisord"]) else []
    )
    assert second.command("status").returncode == 1
    second.up()
    assert second.command("status").returncode == 0
    assert len(leftovers.find(second.home)) > len(NAMES)
    for name, pid in pids(second).items():
        assert psutil.pid_exists(pid), name


def test_a_taken_port_is_told_and_nothing_is_started() -> None:
    with socket.create_server(("127.0.0.1", find_free_port())) as other:
        refused = StackUnderTest(port=other.getsockname()[1])
        try:
            done = refused.command("up")
            assert done.returncode == 1
            assert f"port {refused.port}" in done.stderr
            assert "HEADRACE_GATEWAY_PORT" in done.stderr
            assert "Traceback" not in done.stderr
            assert leftovers.find(refused.home) == []
        finally:
            refused.remove()


def test_commands_without_a_stack_say_so() -> None:
    nothing = StackUnderTest()
    try:
        for arguments in (("status",), ("token",)):
            done = nothing.command(*arguments)
            assert done.returncode == 1
            assert "headrace up" in done.stderr
        assert nothing.command("down").returncode == 0
    finally:
        nothing.remove()


def test_the_token_command_mints_what_is_asked_for(second: StackUnderTest) -> None:
    done = second.command("token", "--role", "viewer", "--ttl", "60")
    answer = httpx.post(
        f"{second.running.url}/api/v1/workspaces",
        json={"slug": "x"},
        headers={"Authorization": f"Bearer {done.stdout.strip()}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED")
    assert second.command("token", "--role", "king").returncode == 2


def test_stopping_leaves_no_process_and_starting_brings_the_data_back(second: StackUnderTest) -> None:
    with second.client() as client:
        made = demand(client.post("workspaces", json={"slug": "kept"}), 201)
    assert second.command("down").returncode == 0
    assert leftovers.find(second.home) == []
    assert list(second.home.run.glob("*.pid")) == []
    second.up()
    with second.client() as client:
        assert demand(client.get(f"workspaces/{made['id']}"), 200)["slug"] == "kept"
