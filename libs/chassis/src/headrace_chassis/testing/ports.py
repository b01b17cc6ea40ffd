"""Free TCP ports of the loopback interface."""

import os
import random
import socket

FIRST = 10_000
"""Below what systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere), so that nobody's
connection takes a port between its being found free and its being listened on."""

WIDTH = 1_000
"""How many ports each process of a test session that runs on several processes has for itself."""


def _mine() -> range:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = FIRST + int(worker) % 10 * WIDTH
    return range(first, first + WIDTH)


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on now.

    Raises OSError if none is found.
    """
    for port in random.sample(_mine(), 100):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("100 ports of 127.0.0.1 were tried, and all are taken")
