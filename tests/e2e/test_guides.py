"""The guides do what they say: their blocks are executed, and what they print is compared."""

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from headrace_local.home import HOME_VARIABLE, PORT_VARIABLE
from headrace_local.testing import StackUnderTest

GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guides").glob("*.md"))
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
