"""Runs the gateway: `headrace-gateway`, configured by environment variables."""

from headrace_chassis.lifecycle import Stop, run
from headrace_chassis.settings import load

from .config import GatewaySettings
from .wiring import serve


def main() -> None:
    """Runs until the first SIGTERM or SIGINT, then drains."""

    async def process(stop: Stop) -> None:
        await serve(load(GatewaySettings), stop)

    run(process)


if __name__ == "__main__":
    main()
