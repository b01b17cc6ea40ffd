"""The supervisor (supervisord) that starts the processes, restarts what dies and keeps their logs.

It is told what to run by files: one configuration for it, and one private specification a process, which
`launch.py` turns into the process. It is asked and ordered about over its XML-RPC interface on a Unix socket.
"""

import configparser
import http.client
import io
import json
import os
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from headrace_local import launch
from headrace_local.errors import LocalStackError
from headrace_local.home import Home, write_private
from headrace_local.processes import STACK_MARK, START_ORDER, Process

_START_SECONDS = 30.0
_STOPPED = ("STOPPED", "EXITED", "FATAL")
_LOG_BYTES = "10MB"
_LOG_BACKUPS = "3"


@dataclass(frozen=True)
class Standing:
    """How a process stands with the supervisor: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL, …"""

    name: str
    state: str
    pid: int
    since: int


@dataclass(frozen=True)
class Supervisor:
    """The supervisor of one stack."""

    home: Home

    @property
    def configuration_file(self) -> Path:
        """What supervisord reads."""
        return self.home.run / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """Where it listens for orders."""
        return self.home.sockets / "supervisor.sock"

    def specification_file(self, name: str) -> Path:
        """How a process is started."""
        return self.home.run / f"{name}.json"

    def write(self, wanted: Sequence[Process]) -> set[str]:
        """Writes everything it needs; returns the names of processes whose start has changed."""
        changed = {process.name for process in wanted if self._write_specification(process)}
        write_private(self.configuration_file, self._configuration(wanted).encode())
        return changed

    def start(self) -> None:
        """Starts supervisord, which starts the processes. It goes on in the background.

        Raises LocalStackError where it refuses.
        """
        self.socket.unlink(missing_ok=True)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.configuration_file)]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            STACK_MARK: str(self.home.root),
        }
        done = subprocess.run(  # noqa: S603 - our own program, and no shell
            command,
            cwd=self.home.root,
            env=environment,
            umask=0o077,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LocalStackError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")
        deadline = time.monotonic() + _START_SECONDS
        while self.standings() is None:
            if time.monotonic() > deadline:
                raise LocalStackError(f"supervisord does not answer; see {self.home.log_file('supervisord')}")
            time.sleep(0.02)

    def standings(self) -> list[Standing] | None:
        """How the processes stand; None where no supervisor answers."""
        found = self._try("getAllProcessInfo")
        if found is None:
            return None
        return [Standing(name=e["name"], state=e["statename"], pid=e["pid"], since=e["start"]) for e in found]

    def adopt(self, changed: set[str]) -> None:
        """Makes a running supervisor follow the files: what is new or stopped starts, the changed restart."""
        rpc = self._rpc()
        added, altered, removed = rpc.supervisor.reloadConfig()[0]
        for name in (*removed, *altered):
            rpc.supervisor.stopProcessGroup(name, True)
            rpc.supervisor.removeProcessGroup(name)
        for name in (*added, *altered):
            rpc.supervisor.addProcessGroup(name)  # autostart starts it
        for standing in self.standings() or []:
            if standing.name in added or standing.name in altered:
                continue
            hangs_back = standing.state == "BACKOFF"  # it waits longer with each start that has failed
            if hangs_back or (standing.name in changed and standing.state in ("RUNNING", "STARTING")):
                rpc.supervisor.stopProcess(standing.name, True)
                rpc.supervisor.startProcess(standing.name, False)
            elif standing.state in _STOPPED:
                rpc.supervisor.startProcess(standing.name, False)

    def shut_down(self) -> bool:
        """Stops everything, last started first, and then itself; False where no supervisor answers.

        By itself it would stop one process after the other, with a second for each.
        """
        for names in reversed(START_ORDER):
            self._stop(names)
        return self._try("shutdown") is not None

    def _stop(self, names: Sequence[str]) -> None:
        """Stops some processes at once and waits for them, as long as a supervisor answers."""
        ordered: set[str] = set()
        while standings := self.standings():
            alive = {s.name for s in standings if s.name in names and s.state not in _STOPPED}
            if not alive:
                return
            for name in alive - ordered:
                self._try("stopProcess", name, False)
            ordered |= alive
            time.sleep(0.02)

    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def _try(self, method: str, *arguments: Any) -> Any | None:
        """What a method answers; None where nobody does, or where the order came too late."""
        if not self.socket.exists():
            return None
        try:
            return getattr(self._rpc().supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return None

    def _write_specification(self, process: Process) -> bool:
        content = json.dumps(
            {
                "argv": process.arguments,
                "env": dict(process.environment),
                "cwd": "/" if process.user else str(self.home.root),
                "pid_file": str(self.home.pid_file(process.name)),
                "user": process.user,
            },
            indent=2,
        ).encode()
        path = self.specification_file(process.name)
        if path.exists() and path.read_bytes() == content:
            return False
        write_private(path, content)
        return True

    def _configuration(self, wanted: Sequence[Process]) -> str:
        parser = configparser.RawConfigParser()
        parser["unix_http_server"] = {"file": _literal(self.socket), "chmod": "0700"}
        parser["supervisord"] = {
            "logfile": _literal(self.home.log_file("supervisord")),
            "logfile_maxbytes": _LOG_BYTES,
            "logfile_backups": _LOG_BACKUPS,
            "pidfile": _literal(self.home.pid_file("supervisord")),
            "umask": "077",
            "silent": "true",
            "minfds": "1024",
        }
        if os.geteuid() == 0:
            parser["supervisord"]["user"] = "root"  # says that this is meant; else it warns
        parser["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        for process in wanted:
            parser[f"program:{process.name}"] = self._program(process)
        text = io.StringIO()
        text.write("; Written by `headrace up`.\n")
        parser.write(text)
        return text.getvalue()

    def _program(self, process: Process) -> dict[str, str]:
        parts = [sys.executable, "-I", "-S", str(launch.__file__), str(self.specification_file(process.name))]
        return {
            "command": " ".join(_literal(shlex.quote(part)) for part in parts),
            "priority": str(_rank(process.name)),
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "1000000",  # a port or a database may be away for as long as it likes
            "stopsignal": process.stop_signal,
            "stopwaitsecs": str(process.stop_seconds),
            "killasgroup": "true",  # what does not stop in time goes with all its children
            "redirect_stderr": "true",
            "stdout_logfile": _literal(self.home.log_file(process.name)),
            "stdout_logfile_maxbytes": _LOG_BYTES,
            "stdout_logfile_backups": _LOG_BACKUPS,
        }


def _rank(name: str) -> int:
    """supervisord starts those of a lower priority first."""
    return next((10 * rank for rank, names in enumerate(START_ORDER) if name in names), 999)


def _literal(value: Path | str) -> str:
    """A value that supervisord, which expands %(name)s, takes as it is."""
    return str(value).replace("%", "%%")
