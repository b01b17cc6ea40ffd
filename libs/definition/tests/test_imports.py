"""What importing the package brings with it."""

import subprocess
import sys

import headrace_definition
import pytest


def test_running_a_plan_needs_no_parser() -> None:
    modules = "plan, model, parameters, problems, sql, substitution"
    program = f"import sys; from headrace_definition import {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "headrace_definition.sql" in loaded.stdout.split()
    assert {"sqlglot", "yaml"}.isdisjoint(loaded.stdout.split())


@pytest.mark.parametrize("name", headrace_definition.__all__)
def test_all_that_is_offered_is_there(name: str) -> None:
    assert getattr(headrace_definition, name) is not None


def test_nothing_else_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = headrace_definition.nothing  # type: ignore[attr-defined]
