"""The life of a process: seen from outside, as a real process with real signals."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

PROGRAM = """
import sys
from headrace_chassis import lifecycle
from headrace_chassis.observability import logs
from headrace_chassis.settings import SettingsError

async def main(stop):
    logs.configure("test")
    kind = sys.argv[1]
    if kind == "settings":
        raise SettingsError("DATABASE_URL: Field required")
    if kind == "fails":
        raise RuntimeError("broken")
    print("ready", flush=True)
    await stop.wait()
    print("draining", flush=True)
    if kind == "slow":
        import asyncio
        await asyncio.Event().wait()
    print("drained", flush=True)

lifecycle.run(main)
"""


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(processes: list["subprocess.Popen[str]"], kind: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    processes.append(process)
    return process


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(processes: list["subprocess.Popen[str]"], number: signal.Signals) -> None:
    process = start(processes, "quick")
    assert line(process) == "ready"
    process.send_signal(number)
    assert [line(process), line(process)] == ["draining", "drained"]
    assert process.wait(30) == 0


def test_the_second_signal_exits(processes: list["subprocess.Popen[str]"]) -> None:
    process = start(processes, "slow")
    assert line(process) == "ready"
    process.send_signal(signal.SIGTERM)
    assert line(process) == "draining"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130


def test_bad_settings_are_told_in_a_line(processes: list["subprocess.Popen[str]"]) -> None:
    process = start(processes, "settings")
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (78, "settings: DATABASE_URL: Field required\n")


def test_a_failure_is_an_exit_code(processes: list["subprocess.Popen[str]"]) -> None:
    process = start(processes, "fails")
    process.communicate(timeout=30)
    assert process.returncode == 1
