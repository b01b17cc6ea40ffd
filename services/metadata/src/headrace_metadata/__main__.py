"""The console script headrace-metadata: reads the settings and runs the service."""

from headrace_chassis import lifecycle
from headrace_chassis.settings import load

from headrace_metadata import wiring
from headrace_metadata.config import MetadataSettings


def main() -> None:
    """Runs the service until it is told to stop."""
    lifecycle.run(lambda stop: wiring.serve(load(MetadataSettings), stop))


if __name__ == "__main__":
    main()
