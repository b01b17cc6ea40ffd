"""The console script headrace-scheduler: reads the settings and runs the service."""

from headrace_chassis import lifecycle
from headrace_chassis.settings import load

from headrace_scheduler import wiring
from headrace_scheduler.config import SchedulerSettings


def main() -> None:
    """Runs the service until it is told to stop."""
    lifecycle.run(lambda stop: wiring.serve(load(SchedulerSettings), stop))


if __name__ == "__main__":
    main()
