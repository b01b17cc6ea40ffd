"""The process itself: it starts from its environment, serves, and drains on a signal."""

import asyncio
import os
import signal
import sys

from headrace_chassis.database import Database
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.serving import until_healthy


def environment(authority: Authority, database_url: str, port: int) -> dict[str, str]:
    """What the process needs, as variables."""
    values = {**authority.service_values("execution", database_url), "grpc_listen": f"127.0.0.1:{port}"}
    variables = {name.upper(): str(value) for name, value in values.items()}
    return {"PATH": os.environ["PATH"], "METADATA_TARGET": "127.0.0.1:1", **variables}


async def start(variables: dict[str, str]) -> asyncio.subprocess.Process:
    """Starts the process."""
    command = (sys.executable, "-m", "headrace_execution")
    return await asyncio.create_subprocess_exec(*command, env=variables, stderr=asyncio.subprocess.PIPE)


async def test_it_serves_with_metadata_away_and_drains_on_a_signal(
    db: Database, authority: Authority, migrated_url: str
) -> None:
    port = free_port()
    process = await start(environment(authority, migrated_url, port))
    try:
        await until_healthy(f"127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)

        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_setting_that_does_not_do_is_named(authority: Authority, migrated_url: str) -> None:
    variables = environment(authority, migrated_url, 0)
    del variables["METADATA_TARGET"]
    process = await start({**variables, "HEARTBEAT_SECONDS": "10", "LEASE_SECONDS": "soon"})

    _, told = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 78
    assert b"METADATA_TARGET" in told
    assert b"LEASE_SECONDS" in told
