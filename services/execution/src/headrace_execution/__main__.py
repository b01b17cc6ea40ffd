"""Runs execution."""

from headrace_chassis import lifecycle, settings
from headrace_chassis.lifecycle import Stop

from headrace_execution.config import ExecutionSettings
from headrace_execution.wiring import serve


def main() -> None:
    """The console script: reads the settings and runs until a signal."""

    async def run(stop: Stop) -> None:
        await serve(settings.load(ExecutionSettings), stop)

    lifecycle.run(run)


if __name__ == "__main__":
    main()
