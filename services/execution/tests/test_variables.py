"""Variables of runs: checked against what the definition refers to, and handed to the worker."""

import json

import pytest

from .support import Cluster, Replica
from .test_runs import refused

WITH_VARIABLES = """
version: 1
sources:
  - {id: rows, connection: warehouse, query: "SELECT '${env.REGION}' AS region, ${env.LEAST} AS least"}
sinks: [{discard: true}]
"""


async def test_values_reach_the_worker_as_texts_and_are_shown(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)
    given = b'{"REGION": "eu", "LEAST": 12345678901234567890.10}'

    run = await replica.run(mesh.metadata.add(WITH_VARIABLES), variables=given)
    assignment = await worker.next_assignment()

    expected = {"REGION": "eu", "LEAST": "12345678901234567890.10"}
    assert json.loads(assignment.variables) == expected
    assert json.loads((await replica.status(run.run_id)).variables) == expected


async def test_a_run_without_any_has_none(mesh: Cluster, replica: Replica) -> None:
    worker = await mesh.worker(replica)

    run = await replica.run(mesh.metadata.add(WITH_VARIABLES), variables=b"{}")

    assert (await worker.next_assignment()).variables == b""
    assert (await replica.status(run.run_id)).variables == b"{}"


@pytest.mark.parametrize(
    ("given", "path", "code"),
    [
        (b'{"REGOIN": "eu"}', "variables.REGOIN", "UNKNOWN_VARIABLE"),
        (b'{"REGION": ["eu"]}', "variables.REGION", "INVALID_VALUE"),
        (b'{"REGION": null}', "variables.REGION", "INVALID_VALUE"),
        (b"[]", "variables", "INVALID_VARIABLES"),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_place(
    mesh: Cluster, replica: Replica, given: bytes, path: str, code: str
) -> None:
    error = await refused(replica.run(mesh.metadata.add(WITH_VARIABLES), variables=given))

    assert error.code == "INVALID_PARAMETERS"
    assert [(problem.path, problem.code) for problem in error.problems] == [(path, code)]
    assert error.problems[0].suggestion == ("REGION" if code == "UNKNOWN_VARIABLE" else None)


async def test_what_the_workspace_allows_is_accepted_whatever_the_definition_says(
    mesh: Cluster, replica: Replica
) -> None:
    mesh.metadata.allowed_variables = ["STAGE"]
    pipeline = mesh.metadata.add(WITH_VARIABLES)

    run = await replica.run(pipeline, variables=b'{"STAGE": "test", "REGION": "eu"}')
    error = await refused(replica.run(pipeline, variables=b'{"STAEG": "test"}'))

    assert json.loads((await replica.status(run.run_id)).variables) == {"REGION": "eu", "STAGE": "test"}
    assert [(each.path, each.suggestion) for each in error.problems] == [("variables.STAEG", "STAGE")]
