"""Following a run over a real WebSocket, from its start to its end."""

import json
import os
import signal
import uuid
from contextlib import suppress
from typing import Any

import httpx
import pytest
from headrace_local.testing import StackUnderTest, create_pipeline, demand, until
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .test_contract import NOOP, SLOW

PATIENT = 60.0


def watch(
    client: httpx.Client, run: str, *, ticket: str | None = None, anonymous: bool = False
) -> ClientConnection:
    """Follows a run as a client of the API: with its token, with a ticket, or with nothing."""
    url = str(client.base_url.join(f"runs/{run}/stream")).replace("http://", "ws://")
    if ticket is not None:
        return connect(f"{url}?ticket={ticket}", proxy=None)
    headers = {} if anonymous else {"Authorization": client.headers["Authorization"]}
    return connect(url, additional_headers=headers, proxy=None)


def states(socket: ClientConnection) -> list[dict[str, Any]]:
    """All that comes, to the end."""
    found: list[dict[str, Any]] = []
    with suppress(ConnectionClosedOK):
        while True:
            found.append(json.loads(socket.recv(timeout=PATIENT)))
    return found


def test_a_run_is_followed_to_its_end(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]

    with watch(admin, run) as socket:
        seen = states(socket)

    assert (seen[-1]["overallStatus"], seen[-1]["taskStatuses"]) == ("COMPLETED", {"noop": "COMPLETED"})
    assert {state["runId"] for state in seen} == {run}
    revisions = [state["revision"] for state in seen]
    assert revisions == sorted(set(revisions))
    assert socket.close_code == 1000


def test_every_change_is_told(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, SLOW)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]

    with watch(admin, run) as socket:
        state = json.loads(socket.recv(timeout=PATIENT))
        while state["taskStatuses"]["many"] != "RUNNING":
            state = json.loads(socket.recv(timeout=PATIENT))
        demand(admin.post(f"runs/{run}/cancel", json={}), 200)
        seen = states(socket)

    assert seen[-1]["overallStatus"] == "CANCELLED"
    assert any(state["cancelRequested"] for state in seen[:-1])


def test_a_restart_of_execution_is_no_more_than_a_pause(stack: StackUnderTest, admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, SLOW)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]

    with watch(admin, run) as socket:
        first = json.loads(socket.recv(timeout=PATIENT))
        process = int((stack.home.root / "run" / "execution.pid").read_text())
        os.kill(process, signal.SIGKILL)
        until(
            lambda: {"status": admin.post(f"runs/{run}/cancel", json={}).status_code},
            lambda answer: answer["status"] == 200,
        )
        seen = states(socket)

    assert seen[-1]["overallStatus"] == "CANCELLED"
    revisions = [state["revision"] for state in (first, *seen)]
    assert revisions == sorted(set(revisions))


def test_a_ticket_opens_the_stream_once(admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    made = demand(admin.post(f"runs/{run}/stream-ticket", json={}), 201)

    with watch(admin, run, ticket=made["ticket"]) as socket:
        seen = states(socket)
    with pytest.raises(InvalidStatus) as caught, watch(admin, run, ticket=made["ticket"]):
        pass

    assert seen[-1]["overallStatus"] == "COMPLETED"
    assert caught.value.response.status_code == 401


def test_who_may_not_see_a_run_may_not_follow_it(stack: StackUnderTest, admin: httpx.Client) -> None:
    pipeline = create_pipeline(admin, NOOP)
    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    refusals = []
    with stack.client("admin", tenant=uuid.uuid4()) as stranger:
        for client, anonymous in ((stranger, False), (admin, True)):
            with pytest.raises(InvalidStatus) as caught, watch(client, run, anonymous=anonymous):
                pass
            refusals.append(caught.value.response)

    assert [answer.status_code for answer in refusals] == [404, 401]
    assert {answer.headers["content-type"] for answer in refusals} == {"application/problem+json"}
