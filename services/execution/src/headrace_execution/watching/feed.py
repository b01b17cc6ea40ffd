"""One run that is watched in this process, and those who watch it."""

from headrace_chassis.latest import Latest

from headrace_execution.domain.run import Run


class RunFeed(Latest[Run]):
    """The newest known state of a run, by its revision."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.tenant = run.tenant
        self.watchers = 0
        self.offer(run)

    def offer(self, run: Run) -> None:
        """Shows a state to all watchers, unless one as new is known."""
        self.show(run.revision, run)
