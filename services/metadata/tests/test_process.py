"""The process itself: it starts from its environment, migrates its database, serves, drains on a signal."""

import asyncio
import os
import signal
import sys

from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.serving import until_healthy

from .support import keyring_json


async def test_it_serves_with_execution_away_and_drains_on_a_signal(
    authority: Authority, database_url: str
) -> None:
    port = free_port()
    values = {**authority.service_values("metadata", database_url), "grpc_listen": f"127.0.0.1:{port}"}
    environment = {
        **{name.upper(): str(value) for name, value in values.items()},
        "PATH": os.environ["PATH"],
        "EXECUTION_TARGET": "127.0.0.1:1",
        "SCHEDULER_TARGET": "127.0.0.1:1",
        "ENCRYPTION_KEYS": keyring_json("k1", "k1"),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "headrace_metadata", env=environment)
    try:
        await until_healthy(f"127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
