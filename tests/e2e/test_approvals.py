"""Approvals over real HTTP: a run that waits outlives what is killed, and goes on with what it was told."""

import os
import signal
import uuid
from typing import Any

import httpx
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until, wait_for_end


def start(client: httpx.Client, definition: str) -> str:
    """The id of a run of a new pipeline."""
    pipeline = create_pipeline(client, definition)
    run: str = demand(client.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    return run


def wait_until_asked(client: httpx.Client, run: str) -> dict[str, Any]:
    """What a run waits for, as soon as it does."""
    shown = until(
        lambda: demand(client.get(f"runs/{run}/workflow"), 200),
        lambda workflow: workflow["waits"][0]["status"] == "WAITING",
    )
    wait: dict[str, Any] = shown["waits"][0]
    return wait


def kill(stack: StackUnderTest, process: str) -> int:
    """Kills a process of the stack; returns what it was."""
    pid = int((stack.home.root / "run" / f"{process}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    return pid


def test_an_approval_outlives_execution_and_worker(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str
) -> None:
    table = f"approved_{uuid.uuid4().hex[:12]}"
    run = start(
        admin,
        f"""
version: 1
sources: [{{id: rows, values: [{{x: 1}}, {{x: 20}}]}}]
transformations:
  - id: approval
    type: approval
    timeout: 21d
    data: {{least: {{type: integer, required: true}}, note: string}}
  - id: kept
    type: select
    columns: {{x: x, note: "${{signals.approval.note}}", kept: "x >= ${{signals.approval.least}}"}}
sinks: [{{id: load, input: kept, connection: {warehouse}, table: public.{table}}}]
""",
    )
    before = wait_until_asked(admin, run)

    kill(stack, "execution")
    kill(stack, "worker")
    data = {"least": 5, "note": "'); DROP TABLE x; --"}
    said = {"signalName": "approval", "data": data}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    path = f"runs/{run}/signal"
    answer = until(
        lambda: {"answer": admin.post(path, json=said, headers=key)},
        lambda sent: sent["answer"].status_code != 503,
    )["answer"]
    again = admin.post(path, json=said, headers=key)
    other = admin.post(path, json={**said, "data": {"least": 0}})

    assert (answer.status_code, again.status_code) == (202, 202)
    assert again.json() == answer.json()
    # By now the run may have ended; either way only the first one counts.
    assert (other.status_code, other.json()["code"] in ("SIGNAL_RECEIVED", "RUN_FINISHED")) == (409, True)
    assert wait_for_end(admin, run)["overallStatus"] == "COMPLETED"
    loaded = stack.warehouse(f"SELECT x, note, kept FROM {table} ORDER BY 1")
    assert [tuple(row) for row in loaded] == [
        (1, data["note"], False),
        (20, data["note"], True),
    ]
    stack.warehouse(f"DROP TABLE {table}")
    after = demand(admin.get(f"runs/{run}/workflow"), 200)
    assert after["waits"][0]["since"] == before["since"]
    assert [(each["data"], each["sentBy"]) for each in after["signals"]] == [(data, answer.json()["sentBy"])]
    messages = [line["message"] for line in demand(admin.get(f"runs/{run}/logs"), 200)["lines"]]
    assert any("waits for signal approval until" in message for message in messages)
    assert any("signal approval came from" in message for message in messages)


def test_a_deadline_passes_while_execution_is_down(stack: StackUnderTest, admin: httpx.Client) -> None:
    run = start(
        admin,
        """
version: 1
sources: [{id: rows, values: [{x: 1}]}]
transformations: [{id: soon, type: wait_for_signal, timeout: 1s}]
sinks: [{id: out, input: soon, discard: true}]
""",
    )
    wait_until_asked(admin, run)
    kill(stack, "execution")

    ended = until(
        lambda: {"answer": admin.get(f"runs/{run}")},
        lambda got: got["answer"].status_code == 200 and got["answer"].json()["overallStatus"] == "FAILED",
    )["answer"].json()

    assert "did not come within 1 seconds" in ended["errors"]["soon"]
    assert ended["taskStatuses"] == {"rows": "COMPLETED", "soon": "FAILED", "out": "SKIPPED"}
    late = admin.post(f"runs/{run}/signal", json={"signalName": "soon"})
    assert (late.status_code, late.json()["code"]) == (409, "RUN_FINISHED")
