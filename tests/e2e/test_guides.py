"""The guides and the README do what they say: their blocks are executed, and what they print is compared."""

import contextlib
import io
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from headrace_local.home import HOME_VARIABLE, PORT_VARIABLE
from headrace_local.testing import StackUnderTest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A block of Python, and what it must print where the guide shows it."""

    line: int
    code: str
    output: str | None


def steps(guide: Path) -> list[Step]:
    """The blocks of a guide, in their order."""
    text = guide.read_text(encoding="utf-8")
    found: list[Step] = []
    for block in BLOCK.finditer(text):
        if block["language"] == "python":
            found.append(Step(text.count("\n", 0, block.start()) + 2, block["text"], None))
        elif block["language"] == "text" and found:
            found[-1] = Step(found[-1].line, found[-1].code, block["text"])
    return found


def pattern(output: str) -> str:
    """A regular expression of what a guide shows; an ellipsis in it stands for anything."""
    return ".*".join(re.escape(part) for part in output.strip().split("…"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_does_what_it_says(
    stack: StackUnderTest, guide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(stack.home.root))
    monkeypatch.setenv(PORT_VARIABLE, str(stack.port))
    variables: dict[str, Any] = {}
    for step in steps(guide):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (step.line - 1) + step.code, str(guide), "exec"), variables)
        if step.output is not None:
            assert re.fullmatch(pattern(step.output), printed.getvalue().strip(), re.DOTALL), (
                f"{guide.name}, line {step.line}: printed\n{printed.getvalue()}\ninstead of\n{step.output}"
            )


def test_there_are_guides() -> None:
    assert GUIDES
    assert all(steps(guide) for guide in GUIDES)


def test_the_readmes_first_pipeline_runs(stack: StackUnderTest) -> None:
    """Its commands, pasted one after the other; only the home and the port differ from a newcomer's."""
    section = README.read_text(encoding="utf-8").partition("## Your first pipeline")[2].partition("\n## ")[0]
    commands = [block["text"] for block in BLOCK.finditer(section) if block["language"] == "bash"]
    assert len(commands) == 3
    script = "".join(commands).replace("make up\n", "").replace(".headrace/", f"{stack.home.root}/")
    script = script.replace("127.0.0.1:8082", f"127.0.0.1:{stack.port}")
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["overallStatus"] in ("PENDING", "RUNNING", "COMPLETED")
