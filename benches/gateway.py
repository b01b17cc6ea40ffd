"""GET of a run through the gateway, beside a bare Starlette and grpc.aio program that calls the same RPC.

Prints both rates, their ratio, and the processor time that each spends on a request. Rounds alternate, so
that what else the machine does meets both alike.

    python benches/gateway.py --home .headrace
"""

import argparse
import asyncio
import json
import socket
import sys
from pathlib import Path

import callers
import processors
from headrace_local.home import Home
from rest import Answer, Connection, connections, drive
from runs import make_pipeline

CONCURRENCY = 32
REQUESTS = 6_000
ROUNDS = 3


async def finished_run(connection: Connection) -> str:
    """A completed run to look at."""
    pipeline = await make_pipeline(connection)
    run = str((await connection.request("POST", f"/api/v1/pipelines/{pipeline}/run", b"{}")).json()["runId"])
    while (await connection.request("GET", f"/api/v1/runs/{run}")).json()["overallStatus"] != "COMPLETED":
        await asyncio.sleep(0.01)
    return run


async def rate(workers: list[Connection], run: str, pid: int) -> tuple[float, float]:
    """Requests a second, and processor seconds that the program of this id has spent on one."""

    def seen(answer: Answer) -> None:
        if answer.status != 200:
            raise SystemExit(f"a request answered {answer.status}: {answer.body.decode()}")

    path = f"/api/v1/runs/{run}"
    before = processors.seconds(pid)
    taken = await drive(workers, (("GET", path, b"") for _ in range(REQUESTS)), seen)
    return REQUESTS / taken, (processors.seconds(pid) - before) / REQUESTS


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answering(port: int) -> None:
    """Returns when something listens on the port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".headrace"))
    options = parser.parse_args()
    ports = json.loads((options.home / "ports.json").read_text())
    token_file = options.home / "tokens" / "admin.jwt"
    tokens = callers.tokens(options.home)
    port = free_port()
    bare = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "bare.py"),
        *(
            "--target",
            f"127.0.0.1:{ports['execution']}",
            "--token-file",
            str(token_file),
            "--port",
            str(port),
        ),
    )
    try:
        await asyncio.wait_for(answering(port), 30)
        async with (
            connections("127.0.0.1", ports["gateway"], tokens, CONCURRENCY) as through_gateway,
            connections("127.0.0.1", port, tokens, CONCURRENCY) as through_bare,
        ):
            run = await finished_run(through_gateway[0])
            gateway_pid = processors.pid_of(Home(options.home), "gateway")
            rounds = [
                (await rate(through_gateway, run, gateway_pid), await rate(through_bare, run, bare.pid))
                for _ in range(ROUNDS)
            ]
        gateway, limit = (max(rates for rates, _ in side) for side in zip(*rounds, strict=True))
        spent = [min(seconds for _, seconds in side) * 1e3 for side in zip(*rounds, strict=True)]
        print(
            f"GET of a run at concurrency {CONCURRENCY}: gateway {gateway:.0f}/s, bare program {limit:.0f}/s"
        )
        print(f"ratio {gateway / limit:.2f}")
        print(f"processor time a request: gateway {spent[0]:.3f} ms, bare program {spent[1]:.3f} ms")
    finally:
        bare.terminate()
        await bare.wait()


if __name__ == "__main__":
    asyncio.run(main())
