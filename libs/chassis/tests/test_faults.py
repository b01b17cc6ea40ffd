"""Fault points do nothing unless a process was started with them, and then what their files say, once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from headrace_chassis import faults

PROGRAM = """
import os
from headrace_chassis import faults
faults.arm(os.environ)
for passage in range(1, 6):
    print(passage, flush=True)
    faults.point("a.b")
"""


def run(folder: Path | None) -> subprocess.CompletedProcess[str]:
    """A process that passes the point five times and tells each time."""
    environment = {} if folder is None else {faults.VARIABLE: str(folder)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """This process is not harmed by what other tests leave."""
    yield
    faults.arm({})


def test_nothing_happens_in_a_process_that_was_not_told(tmp_path: Path) -> None:
    (tmp_path / "a.b").write_text("kill")
    assert run(None).stdout.split() == ["1", "2", "3", "4", "5"]
    assert (tmp_path / "a.b").exists()


def test_a_process_dies_at_the_passage_that_is_named_and_its_successor_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.b").write_text("kill 3")
    first, second = run(tmp_path), run(tmp_path)
    assert (first.returncode, first.stdout.split()) == (-signal.SIGKILL, ["1", "2", "3"])
    assert (second.returncode, len(second.stdout.split())) == (0, 5)


def test_what_happened_is_left_behind(tmp_path: Path) -> None:
    faults.arm({faults.VARIABLE: str(tmp_path)})
    (tmp_path / "a.b").write_text("sleep 1 0")
    faults.point("a.b")
    faults.point("a.b")
    assert [path.name for path in tmp_path.iterdir()] == [f"a.b.{os.getpid()}"]


def test_passages_before_a_point_was_armed_again_do_not_count(tmp_path: Path) -> None:
    faults.arm({faults.VARIABLE: str(tmp_path)})
    (tmp_path / "a.b").write_text("sleep 2 0")
    faults.point("a.b")
    (tmp_path / "a.b").unlink()
    (tmp_path / "other").write_text("so that the file below is another one")
    (tmp_path / "a.b").write_text("sleep 2 0")
    faults.point("a.b")
    assert (tmp_path / "a.b").exists()


def test_a_word_that_means_nothing_is_told(tmp_path: Path) -> None:
    faults.arm({faults.VARIABLE: str(tmp_path)})
    (tmp_path / "a.b").write_text("explode")
    with pytest.raises(ValueError, match="explode"):
        faults.point("a.b")
