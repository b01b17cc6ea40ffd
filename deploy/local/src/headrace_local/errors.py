"""What the local stack tells its user when it cannot go on."""


class LocalStackError(Exception):
    """A problem that the user can do something about; the message says what."""


class StackNotRunningError(LocalStackError):
    """The command needs a running stack."""


class PortTakenError(LocalStackError):
    """The gateway's port belongs to another program."""


class NotHealthyError(LocalStackError):
    """A process did not become ready in time."""
