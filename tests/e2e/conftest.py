"""One real stack for all tests of this folder; each test makes what it needs under names of its own."""

import secrets
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from headrace_local.testing import StackUnderTest, demand


@pytest.fixture(scope="session")
def canary() -> str:
    """A secret that must never show anywhere."""
    return f"canary-{secrets.token_hex(16)}"


@pytest.fixture(scope="session")
def stack(canary: str) -> Iterator[StackUnderTest]:
    """The stack; its worker knows the canary as a secret by reference, and its runs are told to a file."""
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    events = folder / "home" / "openlineage.jsonl"
    variables = {"HEADRACE_SECRET_CANARY": canary, "OPENLINEAGE_URL": f"file://{events}"}
    running = StackUnderTest(variables, folder)
    try:
        running.up()
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="session")
def admin(stack: StackUnderTest) -> Iterator[httpx.Client]:
    """An admin of the local tenant."""
    with stack.client("admin") as client:
        yield client


@pytest.fixture
def folder(stack: StackUnderTest) -> Path:
    """A folder that pipelines may read and write."""
    place = stack.home.work / uuid.uuid4().hex
    place.mkdir()
    return place


@pytest.fixture
def files(admin: httpx.Client, folder: Path) -> str:
    """The name of a connection to that folder."""
    name = f"files-{folder.name}"
    demand(admin.post("connections", json={"name": name, "type": "FILE", "path": str(folder)}), 201)
    return name


@pytest.fixture(scope="session")
def warehouse(stack: StackUnderTest, admin: httpx.Client) -> str:
    """The name of a connection to the user's database."""
    login = stack.warehouse_login()
    body = {
        "name": "e2e-warehouse",
        "type": "POSTGRESQL",
        "host": login["host"],
        "port": login["port"],
        "database": login["database"],
        "username": login["user"],
        "secret": login["password"],
    }
    demand(admin.post("connections", json=body), 201)
    return "e2e-warehouse"
