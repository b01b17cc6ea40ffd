"""The generator, over a copy of the protos: it replaces stubs one by one, and only when it has succeeded."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STUB = "common/v1/paging_pb2.py"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the protos, the generator and the generated stubs."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    ignored = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(ROOT / "libs" / "protos", tmp_path / "libs" / "protos", ignore=ignored)
    return tmp_path


def generate(copy: Path) -> int:
    # The plugins of protoc are found beside the interpreter.
    environment = {"PATH": str(Path(sys.executable).parent)}
    command = [sys.executable, str(copy / "libs" / "protos" / "generate.py")]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def files(copy: Path) -> dict[str, tuple[int, bytes]]:
    """Each generated file: which one it is, and its content."""
    package = copy / "libs" / "protos" / "src" / "headrace"
    return {
        str(path.relative_to(package)): (path.stat().st_ino, path.read_bytes())
        for path in package.rglob("*")
        if path.is_file()
    }


def test_what_has_not_changed_stays_the_same_file(copy: Path) -> None:
    before = files(copy)
    assert generate(copy) == 0
    assert files(copy) == before


def test_what_has_changed_is_replaced_and_what_is_gone_removed(copy: Path) -> None:
    before = files(copy)
    package = copy / "libs" / "protos" / "src" / "headrace"
    (package / STUB).write_text("stale")
    (package / "common" / "v1" / "gone_pb2.py").write_text("")
    assert generate(copy) == 0
    assert {name: content for name, (_, content) in files(copy).items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_a_broken_proto_leaves_all_stubs_as_they_were(copy: Path) -> None:
    (copy / "protos" / "headrace" / "common" / "v1" / "paging.proto").write_text("message {")
    before = files(copy)
    assert generate(copy) != 0
    assert files(copy) == before
    assert not list((copy / "libs" / "protos").glob(".generating-*"))
