"""Runs that cannot succeed say precisely why, leave their target as it was, and tell no secret."""

import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from headrace_local.ports import find_free_port
from headrace_local.testing import StackUnderTest, demand, run_to_end


def failure(status: dict[str, Any], task: str) -> dict[str, Any]:
    """Why a task failed, where nothing else did."""
    assert status["overallStatus"] == "FAILED", status
    assert status["taskStatuses"][task] == "FAILED", status
    assert status["errors"][task]
    return dict(next(entry["error"] for entry in status["tasks"] if entry["id"] == task))


@pytest.fixture
def table(stack: StackUnderTest) -> Iterator[str]:
    """A table of the user's with two rows."""
    name = f"t_{uuid.uuid4().hex}"
    stack.warehouse(f"CREATE TABLE {name} (id int PRIMARY KEY, small smallint, name text)")
    stack.warehouse(f"INSERT INTO {name} VALUES (1, 10, 'one'), (2, 20, 'two')")
    yield name
    stack.warehouse(f"DROP TABLE {name}")


def rows(stack: StackUnderTest, table: str) -> list[tuple[Any, ...]]:
    """What is in the table."""
    return stack.warehouse(f"SELECT * FROM {table} ORDER BY id")


def load(warehouse: str, table: str, values: str, **sink: str) -> str:
    """A definition that loads inline rows into the table."""
    extra = "".join(f"    {key}: {value}\n" for key, value in sink.items())
    return (
        f"version: 1\nsources:\n  - id: rows\n    values: {values}\n"
        f"sinks:\n  - id: load\n    connection: {warehouse}\n    table: {table}\n{extra}"
    )


def read(connection: str, **source: str) -> str:
    """A definition that reads and keeps nothing."""
    extra = "".join(f"    {key}: {value}\n" for key, value in source.items())
    return (
        f"version: 1\nsources:\n  - id: read\n    connection: {connection}\n{extra}"
        "sinks:\n  - {id: out, discard: true}\n"
    )


@pytest.mark.parametrize("mode", ["append", "replace", "merge"])
def test_a_value_that_does_not_fit_leaves_the_target_as_it_was(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, table: str, mode: str
) -> None:
    before = rows(stack, table)
    keys = {"keys": "[id]"} if mode == "merge" else {}
    values = "[{id: 7, small: 1, name: x}, {id: 8, small: 70000, name: y}]"
    status = run_to_end(admin, load(warehouse, table, values, mode=mode, **keys))
    error = failure(status, "load")
    assert error["class"] == "DATA"
    assert "small" in error["message"]
    assert rows(stack, table) == before


def test_a_missing_table_is_named(admin: httpx.Client, warehouse: str) -> None:
    error = failure(run_to_end(admin, read(warehouse, table="no_such_table")), "read")
    assert error["class"] == "CONFIGURATION"
    assert "no_such_table" in error["message"]


def test_a_column_that_went_away_is_named(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, table: str
) -> None:
    definition = read(warehouse, table=table, columns="[id, name]")
    assert run_to_end(admin, definition)["overallStatus"] == "COMPLETED"
    stack.warehouse(f"ALTER TABLE {table} DROP COLUMN name")
    error = failure(run_to_end(admin, definition), "read")
    assert error["class"] == "CONFIGURATION"
    assert "name" in error["message"]


def test_a_column_that_the_target_lacks_is_named_before_anything_lands(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, table: str
) -> None:
    before = rows(stack, table)
    status = run_to_end(admin, load(warehouse, table, "[{id: 9, small: 1, name: z, colour: red}]"))
    assert "colour" in failure(status, "load")["message"]
    assert rows(stack, table) == before


def test_a_value_of_a_file_that_does_not_fit_is_found(admin: httpx.Client, files: str, folder: Path) -> None:
    (folder / "in.csv").write_text("id,age\n1,41\n2,forty\n")
    error = failure(
        run_to_end(admin, read(files, path="in.csv", schema="{id: INTEGER, age: INTEGER}")), "read"
    )
    assert error["class"] == "DATA"
    assert "age" in error["message"]
    assert "3" in str(error), "the line is told"


def test_a_missing_file_is_named(admin: httpx.Client, files: str) -> None:
    error = failure(run_to_end(admin, read(files, path="missing.csv")), "read")
    assert "missing.csv" in error["message"]


def test_files_outside_of_the_roots_are_refused(
    admin: httpx.Client, stack: StackUnderTest, folder: Path
) -> None:
    (folder / "link.csv").symlink_to("/etc/passwd")
    for path in ("/etc/passwd", str(stack.home.secrets / "passwords.json"), str(folder / "link.csv")):
        source = f"version: 1\nsources:\n  - {{id: read, path: {path}, format: csv}}\n"
        definition = source + "sinks:\n  - {id: out, discard: true}\n"
        error = failure(run_to_end(admin, definition), "read")
        assert error["class"] == "CONFIGURATION"
        assert "root:" not in error["message"]


def test_a_failed_check_lands_nothing_and_a_warning_lands_all(
    stack: StackUnderTest, admin: httpx.Client, warehouse: str, table: str
) -> None:
    before = rows(stack, table)
    definition = load(warehouse, table, "[{id: 5, small: 1, name: x}, {id: 6, small: 2, name: null}]")
    check = "quality_checks:\n  - {{id: named, type: not_null, input: rows, columns: [name], severity: {}}}\n"
    error = failure(run_to_end(admin, definition + check.format("error")), "named")
    assert "1" in error["message"]
    assert rows(stack, table) == before
    status = run_to_end(admin, definition + check.format("warning"))
    assert (status["overallStatus"], [w["task"] for w in status["warnings"]]) == ("COMPLETED", ["named"])
    assert len(rows(stack, table)) == 4


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_full_disk_leaves_no_half_written_file(
    stack: StackUnderTest, admin: httpx.Client, files: str, folder: Path, mode: str
) -> None:
    """The worker may write files of eight MiB at the most, and the result has four times that."""
    names = ", ".join(f"{{x: {i}}}" for i in range(100))
    definition = (
        f"version: 1\nsources:\n  - id: rows\n    values: [{names}]\n"
        "transformations:\n  - id: many\n    type: sql_transform\n    inputs: [rows]\n"
        "    sql: SELECT md5(CAST(a.x * b.x * c.x AS VARCHAR)) AS digest FROM rows a, rows b, rows c\n"
        f"sinks:\n  - {{id: out, input: many, connection: {files}, path: out.csv, mode: {mode}}}\n"
    )
    with largest_file(stack, 8 << 20):
        error = failure(run_to_end(admin, definition), "out")
    assert error["class"] == "QUOTA"
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in written if ".headrace" not in path.parts] == []
    assert sum(path.stat().st_size for path in written) < 10_000, "the ledger has no half of it either"
    assert run_to_end(admin, definition)["overallStatus"] == "COMPLETED", "it goes on when there is room"


@contextmanager
def largest_file(stack: StackUnderTest, size: int) -> Iterator[None]:
    """Bounds the size of files that the worker and its children may write."""
    worker = psutil.Process(int(stack.home.pid_file("worker").read_text()))
    before = worker.rlimit(psutil.RLIMIT_FSIZE)

    def limit_all(limits: tuple[int, int]) -> None:
        # Twice, since a process that was forked meanwhile has the limits of before.
        for _ in range(2):
            for process in [worker, *worker.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.rlimit(psutil.RLIMIT_FSIZE, limits)

    limit_all((size, before[1]))
    try:
        yield
    finally:
        limit_all(before)


class Silent:
    """A server that accepts connections and never says a word."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.accepted: list[socket.socket] = []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                self.accepted.append(self.listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        """Ends it."""
        self.listener.close()
        for connection in self.accepted:
            connection.close()


@pytest.fixture(scope="module")
def silent() -> Iterator[Silent]:
    """A server that never answers."""
    server = Silent()
    yield server
    server.close()


def connection_body(stack: StackUnderTest, **changes: Any) -> dict[str, Any]:
    """A connection to the user's database with something wrong about it."""
    login = stack.warehouse_login()
    good = {
        "name": f"c-{uuid.uuid4()}",
        "type": "POSTGRESQL",
        "host": login["host"],
        "port": login["port"],
        "database": login["database"],
        "username": login["user"],
        "secret": login["password"],
    }
    return {**good, **changes}


WRONG_CONNECTIONS: dict[str, dict[str, Any]] = {
    "nobody listens": {"port": "free"},
    "never answers": {"port": "silent", "options": {"connect_timeout": "2"}},
    "no such host": {"host": "no-such-host.invalid"},
    "wrong password": {"secret": "wrong-canary-3f9a"},
    "no such database": {"database": "no_such_database"},
    "Headrace's own database": {"database": "metadata", "username": "metadata"},
    "Headrace's own NATS": {"port": "nats"},
    "metadata address": {"host": "169.254.169.254"},
    "a Unix socket": {"host": "socket"},
}


@pytest.mark.parametrize("wrong", WRONG_CONNECTIONS)
def test_a_connection_that_does_not_work_says_why(
    stack: StackUnderTest, admin: httpx.Client, silent: Silent, wrong: str
) -> None:
    places: dict[Any, Any] = {
        "free": find_free_port(),
        "silent": silent.port,
        "nats": stack.running.ports["nats"],
        "socket": str(stack.home.sockets / "postgres"),
    }
    changes = {key: places.get(str(value), value) for key, value in WRONG_CONNECTIONS[wrong].items()}
    body = connection_body(stack, **changes)
    created = admin.post("connections", json=body)
    if created.status_code == 400:  # refused as early as that
        assert created.json()["errors"]
        return
    connection = demand(created, 201)
    found = demand(admin.post(f"connections/{connection['id']}/test", json={}), 200)
    assert found["success"] is False
    assert found["code"]
    assert found["message"]
    assert body["secret"] not in str(found)
    error = failure(run_to_end(admin, read(body["name"], table="t")), "read")
    assert error["message"]
    assert body["secret"] not in str(error)


def test_different_faults_of_a_connection_are_told_apart(
    stack: StackUnderTest, admin: httpx.Client, silent: Silent
) -> None:
    codes = set()
    for changes in (
        {"port": find_free_port()},
        {"secret": "wrong"},
        {"database": "no_such_database"},
        {"host": "no-such-host.invalid"},
    ):
        made = demand(admin.post("connections", json=connection_body(stack, **changes)), 201)
        codes.add(demand(admin.post(f"connections/{made['id']}/test", json={}), 200)["code"])
    assert len(codes) == 4, codes
