"""Ports are kept, picked anew where they are taken, and refused where the user must decide."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from headrace_local.errors import LocalStackError, PortTakenError
from headrace_local.home import PORT_VARIABLE, Home
from headrace_local.ports import HOST, choose_ports, find_free_port, is_free, read_ports
from headrace_local.stack import attach, status_of


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody else's server."""
    with socket.create_server((HOST, 0)) as server:
        yield server


@pytest.fixture(autouse=True)
def gateway_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A gateway port that is free; the default may be in use on this machine."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
    monkeypatch.setenv(PORT_VARIABLE, str(port))
    return port


def test_ports_are_kept_between_starts(home: Home, gateway_port: int) -> None:
    first = choose_ports(home, ours=())
    assert choose_ports(home, ours=()) == first
    assert first["gateway"] == gateway_port
    assert len(set(first.by_name.values())) == len(first.by_name)


def test_a_port_that_another_program_took_is_picked_anew(home: Home) -> None:
    first = choose_ports(home, ours=())
    with socket.create_server((HOST, first["nats"])):
        second = choose_ports(home, ours=())
        assert second["nats"] != first["nats"]
        assert choose_ports(home, ours=("nats",))["nats"] == second["nats"]
    assert read_ports(home) == second.by_name


def test_a_home_of_an_older_version_is_not_taken_for_a_ready_stack(home: Home) -> None:
    known = choose_ports(home, ours=()).by_name
    home.ports_file.write_text(json.dumps({name: known[name] for name in list(known)[:-1]}))
    assert attach(home) is None
    with pytest.raises(LocalStackError, match=r"older version.*headrace up"):
        status_of(home)


def test_a_port_of_a_running_process_is_left_alone(home: Home) -> None:
    first = choose_ports(home, ours=())
    with socket.create_server((HOST, first["nats"])), socket.create_server((HOST, first["gateway"])):
        assert choose_ports(home, ours=("nats", "gateway")) == first


def test_the_gateways_port_is_never_moved_silently(
    home: Home, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = listener.getsockname()[1]
    monkeypatch.setenv(PORT_VARIABLE, str(taken))
    with pytest.raises(PortTakenError, match=rf"port {taken} .* taken.* {PORT_VARIABLE}"):
        choose_ports(home, ours=())
    assert not home.exists()


@pytest.mark.parametrize("text", ["eighty", "0", "65536", "-1", "80.5"])
def test_a_port_that_is_none_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(PORT_VARIABLE, text)
    with pytest.raises(LocalStackError, match=PORT_VARIABLE):
        choose_ports(home, ours=())


def test_is_free_tells_the_truth(listener: socket.socket) -> None:
    assert not is_free(listener.getsockname()[1])


def test_no_port_is_chosen_twice_while_nobody_listens_on_it_yet() -> None:
    """Not by another process that chooses at the same time, nor by the same."""
    mine = [find_free_port() for _ in range(20)]
    offered = [*mine, *range(31_900, 32_000)]
    program = (
        "import headrace_local.ports as ports; "
        f"ports.random.sample = lambda *_, **__: {offered}; "
        "print(ports.find_free_port())"
    )

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert len(set(mine)) == len(mine)
    assert int(told.stdout) not in mine
