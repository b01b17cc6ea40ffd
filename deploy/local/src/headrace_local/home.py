"""Where the local stack keeps its state: one folder, `.headrace` unless HEADRACE_HOME names another.

Everything in it belongs to the stack, and removing it while the stack is down removes the stack.
"""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headrace_local.errors import LocalStackError

HOME_VARIABLE = "HEADRACE_HOME"
PORT_VARIABLE = "HEADRACE_GATEWAY_PORT"

_SOCKET_PATH_LIMIT = 107
"""Bytes that Linux allows the path of a Unix socket (`sockaddr_un`)."""
_LONGEST_NAME = "postgres/.s.PGSQL.65535.lock"


@dataclass(frozen=True)
class Home:
    """The folder of one stack and the places in it."""

    root: Path

    @property
    def tokens(self) -> Path:
        """Ready-made tokens of users, one a role."""
        return self.root / "tokens"

    @property
    def run(self) -> Path:
        """Pid files, and how each process is started."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.root / "log"

    @property
    def secrets(self) -> Path:
        """Passwords and keys; only the owner may look into it."""
        return self.root / "secrets"

    @property
    def data(self) -> Path:
        """What PostgreSQL, NATS and the worker keep."""
        return self.root / "data"

    @property
    def work(self) -> Path:
        """Files that pipelines may read and write."""
        return self.root / "work"

    @property
    def temp(self) -> Path:
        """Files that pipelines may read and write, and that may go at any time."""
        return self.root / "tmp"

    @property
    def ports_file(self) -> Path:
        """The ports that this stack has chosen."""
        return self.root / "ports.json"

    @property
    def warehouse_file(self) -> Path:
        """How to log in to the database for the user's own tables."""
        return self.root / "warehouse.json"

    @property
    def lock_file(self) -> Path:
        """Held by whoever starts or stops the stack."""
        return self.root / "lock"

    def token_file(self, role: str) -> Path:
        """The token of a role."""
        return self.tokens / f"{role}.jwt"

    def pid_file(self, process: str) -> Path:
        """Holds the process id of a running process."""
        return self.run / f"{process}.pid"

    def log_file(self, process: str) -> Path:
        """What a process says."""
        return self.logs / f"{process}.log"

    @property
    def sockets(self) -> Path:
        """The folder of Unix sockets: `run`, or one under /tmp where that path would be too long."""
        if len(os.fsencode(self.run / _LONGEST_NAME)) <= _SOCKET_PATH_LIMIT:
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path("/tmp") / f"headrace-{os.getuid()}-{digest}"  # noqa: S108 - checked by `prepare`

    def exists(self) -> bool:
        """Whether a stack was ever started here."""
        return self.ports_file.exists()

    def prepare(self) -> None:
        """Makes the folders.

        The root may be traversed but not listed by others, because PostgreSQL runs as another user where root
        starts the stack. Raises LocalStackError where a folder cannot be made or belongs to somebody else.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o711)
            for folder in (self.run, self.data):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o711)
            for folder in (self.tokens, self.logs, self.secrets, self.work, self.temp):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)
            if self.sockets != self.run:
                self._prepare_sockets()
        except OSError as error:
            raise LocalStackError(f"cannot prepare {self.root}: {error.strerror}") from error

    def _prepare_sockets(self) -> None:
        """A predictable name in /tmp may have been taken by somebody else: then it is not used."""
        self.sockets.mkdir(mode=0o711, exist_ok=True)
        found = self.sockets.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise LocalStackError(f"{self.sockets} belongs to another user; choose another {HOME_VARIABLE}")
        self.sockets.chmod(0o711)

    def file_roots(self) -> list[Path]:
        """Folders whose files pipelines may use: `work`, `tmp` and the system's temporary folder.

        The last is left out where the stack itself lives in it, since its secrets would lie under a root.
        """
        system = Path(tempfile.gettempdir()).resolve()
        roots = [self.work, self.temp]
        return roots if self.root.is_relative_to(system) else [*roots, system]


def find_home(given: Path | None = None) -> Home:
    """The stack's home: the argument, else HEADRACE_HOME, else `.headrace` in the current folder.

    Raises LocalStackError for a path that no setting could hold.
    """
    path = (given or Path(os.environ.get(HOME_VARIABLE) or ".headrace")).expanduser().resolve()
    if "," in str(path) or not str(path).isprintable():  # settings list folders with commas between them
        raise LocalStackError(f"{HOME_VARIABLE} may hold neither a comma nor a control character: {path}")
    return Home(path)


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file atomically; only the owner may read it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
