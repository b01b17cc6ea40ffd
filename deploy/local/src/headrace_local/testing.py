"""A stack of its own for tests: real processes in a temporary home, driven as a user drives them."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg
import httpx

from headrace_local import leftovers
from headrace_local.errors import LocalStackError
from headrace_local.home import HOME_VARIABLE, PORT_VARIABLE, Home
from headrace_local.ports import find_free_port
from headrace_local.stack import Running, started
from headrace_local.tokens import TENANT, mint

FINAL = ("COMPLETED", "FAILED", "CANCELLED")
_COMMAND_SECONDS = 300.0
Seen = TypeVar("Seen")

_RUN_SECONDS = 60.0


@dataclass
class StackUnderTest:
    """One stack in a temporary home. `variables` are set for each of its commands."""

    variables: Mapping[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="hr-")))
    port: int = field(default_factory=find_free_port)

    @property
    def home(self) -> Home:
        """Its home."""
        return Home(self.folder / "home")

    @property
    def running(self) -> Running:
        """The stack as it was started."""
        return started(self.home)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the command `headrace` in this stack's home."""
        environment = {
            **os.environ,
            **self.variables,
            HOME_VARIABLE: str(self.home.root),
            PORT_VARIABLE: str(self.port),
            "NO_COLOR": "1",
            "COLUMNS": "160",
        }
        return subprocess.run(  # noqa: S603 - our own program, and no shell
            [str(Path(sys.executable).with_name("headrace")), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def up(self) -> None:
        """Starts it; raises LocalStackError with what the command said where that fails."""
        done = self.command("up")
        if done.returncode != 0:
            raise LocalStackError(f"headrace up: {done.stdout}{done.stderr}")

    def remove(self) -> None:
        """Stops it and deletes its home."""
        self.command("down")
        leftovers.end(self.home)
        shutil.rmtree(self.home.sockets, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(
        self,
        role: str = "admin",
        *,
        tenant: uuid.UUID = TENANT,
        workspaces: Sequence[str] = ("*",),
        subject: str | None = None,
    ) -> httpx.Client:
        """An HTTP client of the API with a token of its own; paths are relative to /api/v1/."""
        running = self.running
        token = mint(
            running.credentials,
            role=role,
            tenant=tenant,
            workspaces=workspaces,
            subject=subject,
            lifetime=timedelta(hours=1),
        )
        return httpx.Client(
            base_url=f"{running.url}/api/v1/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(60.0, connect=5.0),
        )

    def warehouse(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement in the user's database."""

        async def ask() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(**self.warehouse_login())
            try:
                return [tuple(row) for row in await connection.fetch(sql, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def warehouse_login(self) -> dict[str, Any]:
        """How to log in to the user's database."""
        login: dict[str, Any] = json.loads(self.home.warehouse_file.read_text())
        login["user"] = login.pop("username")
        return login


def create_pipeline(client: httpx.Client, definition: str, **fields: Any) -> dict[str, Any]:
    """Creates a pipeline under a name of its own and returns it."""
    body = {"name": f"pipeline-{uuid.uuid4()}", "yamlDefinition": definition, **fields}
    return demand(client.post("pipelines", json=body), 201)


def run_to_end(client: httpx.Client, definition: str, **body: Any) -> dict[str, Any]:
    """Creates a pipeline that is not retried, runs it, and returns the final status of the run."""
    pipeline = create_pipeline(client, definition, maxRetries=0)
    run = demand(client.post(f"pipelines/{pipeline['id']}/run", json=body), 202)
    return wait_for_end(client, run["runId"])


def wait_for_end(client: httpx.Client, run: str) -> dict[str, Any]:
    """The status of a run once it is final."""
    return until(
        lambda: demand(client.get(f"runs/{run}"), 200), lambda status: status["overallStatus"] in FINAL
    )


def until(
    look: Callable[[], Seen],
    good: Callable[[Seen], bool],
    seconds: float = _RUN_SECONDS,
) -> Seen:
    """Looks until what is seen is good, and returns it; raises AssertionError showing the last look."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if good(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} seconds still {seen}")
        time.sleep(0.05)


def demand(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The JSON of an answer that must have this status; AssertionError shows it where it has another."""
    if answer.status_code != status:
        request = answer.request
        raise AssertionError(
            f"{request.method} {request.url} answered {answer.status_code}: {answer.text[:2000]}"
        )
    return dict(answer.json()) if answer.content else {}


def secret_forms(secret: str) -> dict[str, bytes]:
    """How a secret may look when it leaks, by the name of the form."""
    return {
        "raw": secret.encode(),
        "base64": base64.b64encode(secret.encode()).rstrip(b"="),
        "url": quote(secret, safe="").encode(),
        "json": json.dumps(secret)[1:-1].encode(),
    }
