"""Copies of frozen values."""

import dataclasses
import uuid

import pytest
from headrace_execution.domain.run import Stage, Task
from headrace_execution.domain.states import StageState
from headrace_execution.domain.values import replace

STAGE = Stage(uuid.UUID(int=1), 0, (Task(0), Task(1)))


def test_a_copy_is_what_the_constructor_would_have_made() -> None:
    changed = replace(STAGE, state=StageState.SKIPPED, attempt=2)

    assert changed == dataclasses.replace(STAGE, state=StageState.SKIPPED, attempt=2)
    assert (STAGE.state, STAGE.attempt) == (StageState.BLOCKED, 0)
    assert changed.tasks is STAGE.tasks


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Stage has no field colour"):
        replace(STAGE, colour="red")
