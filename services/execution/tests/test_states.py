"""The transition tables: the whole grid, in code and in the database."""

import itertools
from enum import StrEnum
from typing import Any

import asyncpg
import pytest
from headrace_chassis.database import Database, driver
from headrace_execution.domain import states
from headrace_execution.domain.states import RunState, StageState, TaskState
from headrace_execution.store.sql import SqlStore

from .factories import accepted

MACHINES: list[tuple[Any, Any, Any, str]] = [
    (RunState, states.RUN_STEPS, states.check_run_step, "runs"),
    (StageState, states.STAGE_STEPS, states.check_stage_step, "stages"),
    (TaskState, states.TASK_STEPS, states.check_task_step, "tasks"),
]
GRID = [
    (before, after, after in steps[before] or before is after, check)
    for machine, steps, check, _ in MACHINES
    for before, after in itertools.product(machine, machine)
]


@pytest.mark.parametrize(("before", "after", "legal", "check"), GRID)
def test_each_step_of_the_grid_is_allowed_or_refused(
    before: StrEnum, after: StrEnum, legal: bool, check: Any
) -> None:
    if legal:
        check(before, after)
    else:
        with pytest.raises(states.IllegalTransition):
            check(before, after)


@pytest.mark.parametrize(("machine", "steps"), [(machine, steps) for machine, steps, _, _ in MACHINES])
def test_each_state_has_a_row_and_final_states_have_no_steps(machine: Any, steps: Any) -> None:
    finals = {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"}

    assert set(steps) == set(machine)
    assert {state for state in machine if not steps[state]} == {s for s in machine if s.value in finals}


@pytest.mark.parametrize(("machine", "steps", "table"), [(m, s, t) for m, s, _, t in MACHINES])
async def test_the_database_refuses_exactly_the_steps_that_the_table_lacks(
    machine: Any, steps: Any, table: str, db: Database, store: SqlStore
) -> None:
    run = accepted()
    await store.run(lambda tx: tx.runs.insert([run]))

    refused = set()
    for before, after in itertools.product(machine, machine):
        async with db.read() as conn:
            raw = driver(conn)
            # The guards of the columns beside the state are not what is tried here.
            worker = ", worker = CASE WHEN $1 = 'LEASED' THEN id END"
            ready_at = ", ready_at = CASE WHEN $1 = 'READY' THEN now() END"
            setting = f"state = $1{worker + ready_at if table == 'stages' else ''}"
            await raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_legal_step")
            await raw.execute(f"UPDATE {table} SET {setting}", before)
            await raw.execute(f"ALTER TABLE {table} ENABLE TRIGGER {table}_legal_step")
            try:
                await raw.execute(f"UPDATE {table} SET {setting}", after)
            except asyncpg.CheckViolationError:
                refused.add((before, after))

    legal = {(before, after) for before in machine for after in steps[before]}
    legal |= {StageState: states.STAGE_LEAPS, RunState: states.RUN_LEAPS}.get(machine, frozenset())
    everything = set(itertools.product(machine, machine))
    assert refused == everything - legal - {(state, state) for state in machine}
