"""The worker's process: `headrace-worker`, set up by environment variables (see config.py)."""

from __future__ import annotations

import os

from headrace_chassis import lifecycle
from headrace_chassis.observability import logs
from headrace_chassis.settings import load

from headrace_worker.config import WorkerSettings
from headrace_worker.wiring import running


async def _main(stop: lifecycle.Stop) -> None:
    settings = load(WorkerSettings)
    logs.configure("worker", level=settings.log_level, form=settings.log_format)
    async with running(settings, dict(os.environ)):
        await stop.wait()


def main() -> None:
    """Run until SIGTERM or SIGINT: the first drains, the second ends at once."""
    lifecycle.run(_main)


if __name__ == "__main__":
    main()
