"""What the operator's settings mean to the engine: handed to the zygote once, inherited by every stage
process.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from headrace_connectors.api import AddressGuard, Environment


@dataclass(frozen=True)
class EngineOptions:
    """Limits and places of one stage. Sizes are bytes, times are seconds."""

    temp_dir: str
    """Scratch folders of attempts are made below it."""
    artifacts_dir: str
    """Rows that one stage leaves for another are kept below it."""
    worker_name: str = ""
    """The name of the worker, for logs."""
    file_roots: tuple[str, ...] = ()
    memory_bytes: int = 512 * 1024 * 1024
    definition_environment: dict[str, str] = field(default_factory=dict)
    """What `${env.NAME}` may name, with the values."""
    max_temp_bytes: int = 64 * 1024 * 1024 * 1024
    max_file_bytes: int = 0
    """The largest file that a stage may write; 0 is no limit."""
    max_output_bytes: int = 0
    """The largest output of a run; 0 is no limit."""
    threads: int = 2
    connect_timeout: float = 10.0
    allow_loopback: bool = False
    allow_networks: tuple[str, ...] = ()
    deny_endpoints: tuple[str, ...] = ()
    """host:port of servers that no stage may reach."""

    def environment(self, folder: str, application_name: str) -> Environment:
        """The same in the words of the connectors, for one attempt with its own scratch folder."""
        return Environment(
            temp_dir=Path(self.temp_dir) / folder,
            guard=AddressGuard(
                allow_loopback=self.allow_loopback,
                allowed_networks=self.allow_networks,
                denied_endpoints=tuple(_endpoint(text) for text in self.deny_endpoints),
            ),
            file_roots=tuple(Path(root) for root in self.file_roots),
            memory_limit_bytes=self.memory_bytes,
            max_temp_bytes=self.max_temp_bytes,
            threads=self.threads,
            connect_timeout=self.connect_timeout,
            application_name=application_name,
        )

    def to_json(self) -> bytes:
        """For `from_json` at the other end."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(data: bytes) -> EngineOptions:
        """The options that `to_json` wrote."""
        fields = json.loads(data)
        for name in ("file_roots", "allow_networks", "deny_endpoints"):
            fields[name] = tuple(fields[name])
        return EngineOptions(**fields)


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
