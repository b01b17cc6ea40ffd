"""Whether a process of the stack is ready to be used."""

import enum
import http.client
import socket
from urllib.parse import urlsplit

from headrace_local.ports import HOST, Ports
from headrace_local.processes import Process

_TIMEOUT_SECONDS = 2.0


class Health(enum.Enum):
    """What a look at a process found."""

    READY = "ready"
    NOT_READY = "not ready"
    DOWN = "down"


def check(process: Process, ports: Ports) -> Health:
    """Asks a process of ours at its readiness endpoint; the others need only accept connections."""
    if process.ready_url is not None:
        return _ask(process.ready_url)
    try:
        with socket.create_connection((HOST, ports[process.name]), timeout=_TIMEOUT_SECONDS):
            return Health.READY
    except OSError:
        return Health.DOWN


def _ask(url: str) -> Health:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", parts.path)
        return Health.READY if connection.getresponse().status == http.client.OK else Health.NOT_READY
    except (OSError, http.client.HTTPException):
        return Health.DOWN
    finally:
        connection.close()
