"""A real NATS with JetStream in a temporary folder, which tests may also kill and wipe."""

import shutil
import socket
import subprocess
import sysconfig
import time
from pathlib import Path

from headrace_chassis.testing.ports import free_port

_START_SECONDS = 60.0


class NatsServer:
    """One server on a port of its own, which it keeps when it is started again. It demands credentials."""

    user = "headrace"
    password = "for-tests"  # noqa: S105 - of a server that lives as long as a test

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL, with credentials."""
        return f"nats://{self.user}:{self.password}@127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts the server and waits until it accepts connections."""
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        self._folder.mkdir(parents=True, exist_ok=True)
        arguments = ["-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", str(self._folder)]
        credentials = ["--user", self.user, "--pass", self.password]
        self._process = subprocess.Popen(  # noqa: S603 - our own binary and arguments
            [str(binary), *arguments, *credentials],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("nats-server did not start")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kills the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Deletes all that JetStream stored; the server must be down."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
