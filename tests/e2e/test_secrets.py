"""A secret that went everywhere it may go shows nowhere else."""

import contextlib
import json
import uuid
from pathlib import Path

import asyncpg
import httpx
import pytest
from headrace_chassis.testing.files import files_below
from headrace_local.testing import StackUnderTest, create_pipeline, demand, secret_forms, wait_for_end

from .test_openlineage import told_of


def logs(stack: StackUnderTest) -> list[Path]:
    """All log files of the stack."""
    return [path for path in stack.home.logs.iterdir() if path.is_file()]


def test_no_secret_is_in_a_log_or_in_an_answer(
    stack: StackUnderTest, admin: httpx.Client, canary: str
) -> None:
    stored = f"st:ored/{canary}+%"
    login = stack.warehouse_login()
    answers = []
    for given in ({"secret": stored}, {"secretRef": "env://HEADRACE_SECRET_CANARY"}):
        body = {
            "name": f"canary-{uuid.uuid4()}",
            "type": "POSTGRESQL",
            "host": login["host"],
            "port": login["port"],
            "database": login["database"],
            "username": login["user"],
            **given,
        }
        created = admin.post("connections", json=body)
        connection = demand(created, 201)["id"]
        answers += [created.text, admin.get(f"connections/{connection}").text]
        answers.append(admin.post(f"connections/{connection}/test", json={}).text)
        definition = (
            f"version: 1\nsources:\n  - {{id: read, connection: {body['name']}, table: t}}\n"
            "sinks:\n  - {id: out, discard: true}\n"
        )
        pipeline = create_pipeline(admin, definition, maxRetries=0)
        run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
        status = wait_for_end(admin, run)
        assert status["overallStatus"] == "FAILED"
        assert "assword" in str(status["errors"]), "the canary was really used to log in"
        answers.append(json.dumps(status))
        told = told_of(stack, run)
        assert told[1]["eventType"] == "FAIL"
        answers.append(json.dumps(told))
    answers.append(admin.get("connections", params={"limit": 200}).text)
    running = stack.running
    secrets = [stored, canary, *running.credentials.postgres_passwords.values()]
    secrets += [running.credentials.nats_password, *(running.token(r) for r in ("admin", "editor", "viewer"))]
    for secret in secrets:
        for form, text in secret_forms(secret).items():
            assert not any(text in answer.encode() for answer in answers), form
            assert not [path.name for path in logs(stack) if text in path.read_bytes()], form


def test_a_stored_secret_is_encrypted_at_rest(stack: StackUnderTest, admin: httpx.Client) -> None:
    marker = f"at-rest-{uuid.uuid4().hex}"
    body = {
        "name": marker,
        "type": "POSTGRESQL",
        "host": "db",
        "database": "d",
        "username": "u",
        "secret": f"s{marker}",
    }
    demand(admin.post("connections", json=body), 201)
    names, secrets = 0, 0
    for path in files_below(stack.home.data):
        with contextlib.suppress(FileNotFoundError):  # the database removes files as it goes
            content = path.read_bytes()
            names += marker.encode() in content
            secrets += f"s{marker}".encode() in content
    assert names > 0, "the search does find what is stored"
    assert secrets == 0


async def test_no_service_may_look_into_the_database_of_another(stack: StackUnderTest) -> None:
    running = stack.running
    passwords = running.credentials.postgres_passwords
    for user, database in (("metadata", "execution"), ("execution", "metadata"), ("warehouse", "metadata")):
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(
                host=str(running.home.sockets / "postgres"),
                port=running.ports["postgres"],
                user=user,
                password=passwords[user],
                database=database,
            )
    for user in ("postgres", "metadata"):  # by TCP, not even where they may be
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(
                host="127.0.0.1",
                port=running.ports["postgres"],
                user=user,
                password=passwords[user],
                database=user,
            )


def test_files_of_the_stack_are_private(stack: StackUnderTest) -> None:
    for path in [*stack.home.secrets.rglob("*"), *stack.home.tokens.rglob("*"), *logs(stack)]:
        assert path.stat().st_mode & 0o077 == 0, path
    for path in stack.home.run.glob("*.json"):
        assert path.stat().st_mode & 0o077 == 0, path
