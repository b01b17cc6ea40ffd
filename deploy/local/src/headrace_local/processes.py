"""What the stack consists of: each process, its settings, and how it shows that it is ready."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace_local import broker, postgres
from headrace_local.credentials import Credentials
from headrace_local.errors import LocalStackError
from headrace_local.home import Home
from headrace_local.ports import Ports
from headrace_local.tokens import AUDIENCE, ISSUER

PASSED_ON = (
    "LOG_LEVEL",
    "MAIL_FROM",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "SMTP_HOST",
    "SMTP_PASSWORD_FILE",
    "SMTP_PORT",
    "SMTP_SECURITY",
    "SMTP_USERNAME",
    "WORKER_MEMORY",
    "OPENLINEAGE_API_KEY_FILE",
    "OPENLINEAGE_NAMESPACE",
    "OPENLINEAGE_URL",
    "WORKER_SLOTS",
    "WORKER_THREADS",
    "WORKER_WARM_PROCESSES",
)
"""Settings of the caller's environment that `headrace up` hands on; no other reaches the processes."""

START_ORDER = (("postgres", "nats"), ("metadata", "execution", "scheduler"), ("worker", "gateway"))
"""Who starts before whom; they stop the other way round, each group at once."""

SECRET_PREFIX = "HEADRACE_SECRET_"  # noqa: S105 - the name of variables, not a secret
"""Variables of the caller that connections may refer to as env://NAME; handed to the worker alone."""


@dataclass(frozen=True)
class Process:
    """One process of the stack."""

    name: str
    arguments: list[str]
    environment: Mapping[str, str] = field(repr=False)
    ready_url: str | None = None
    user: str | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 20


def processes(home: Home, ports: Ports, credentials: Credentials) -> list[Process]:
    """All processes of the stack, in the order in which they start."""
    stack = _Stack(home, ports, credentials)
    return [
        stack.postgres(),
        stack.nats(),
        stack.metadata(),
        stack.execution(),
        stack.scheduler(),
        stack.worker(),
        stack.gateway(),
    ]


@dataclass(frozen=True)
class _Stack:
    home: Home
    ports: Ports
    credentials: Credentials

    def postgres(self) -> Process:
        return Process(
            name="postgres",
            arguments=postgres.arguments(self.home, self.ports),
            environment=self._basics(),
            user=postgres.system_user(),
            stop_signal="INT",  # "fast": connections are cut, nothing is lost
            stop_seconds=60,
        )

    def nats(self) -> Process:
        return Process(name="nats", arguments=broker.arguments(self.home), environment=self._basics())

    def metadata(self) -> Process:
        settings = {
            **self._service("metadata"),
            "EXECUTION_TARGET": self.ports.address("execution"),
            "SCHEDULER_TARGET": self.ports.address("scheduler"),
            "ENCRYPTION_KEYS_FILE": str(self.credentials.encryption_keys),
        }
        return self._ours("metadata", settings)

    def execution(self) -> Process:
        settings = {
            **self._service("execution"),
            "METADATA_TARGET": self.ports.address("metadata"),
            "SCHEDULER_TARGET": self.ports.address("scheduler"),
            "ARTIFACTS_URL": self._artifacts(),
            "NOTIFY_ALLOW_HTTP": "true",
            "NOTIFY_ALLOW_LOOPBACK": "true",
        }
        return self._ours("execution", settings)

    def scheduler(self) -> Process:
        settings = {
            **self._service("scheduler"),
            "METADATA_TARGET": self.ports.address("metadata"),
            "EXECUTION_TARGET": self.ports.address("execution"),
        }
        return self._ours("scheduler", settings)

    def worker(self) -> Process:
        handed_on = {name: value for name, value in os.environ.items() if name.startswith(SECRET_PREFIX)}
        settings = {
            **handed_on,
            **self._observed("worker"),
            "EXECUTION_TARGET": self.ports.address("execution"),
            "WORKER_NAME": "local",
            "WORKER_KEY_FILE": str(self.credentials.internal_key("worker:local")),
            "WORKER_FILE_ROOTS": ",".join(str(root) for root in self.home.file_roots()),
            "WORKER_TEMP_DIR": str(self.home.data / "scratch"),
            "WORKER_ARTIFACTS_DIR": str(self.home.data / "artifacts"),
            "ARTIFACTS_URL": self._artifacts(),
            "WORKER_ALLOW_LOOPBACK": "true",
            "WORKER_DENY_ENDPOINTS": self.ports.address("nats"),
        }
        return self._ours("worker", settings)

    def gateway(self) -> Process:
        settings = {
            **self._observed("gateway"),
            **self._verification(),
            "HTTP_LISTEN": self.ports.address("gateway"),
            "METADATA_TARGET": self.ports.address("metadata"),
            "EXECUTION_TARGET": self.ports.address("execution"),
            "SCHEDULER_TARGET": self.ports.address("scheduler"),
        }
        return self._ours("gateway", settings, ready_at="gateway")

    def _ours(self, name: str, settings: Mapping[str, str], ready_at: str | None = None) -> Process:
        return Process(
            name=name,
            arguments=[_command(f"headrace-{name}")],
            environment={**self._basics(), **settings},
            ready_url=f"http://{self.ports.address(ready_at or f'{name}.metrics')}/readyz",
        )

    def _service(self, name: str) -> dict[str, str]:
        return {
            **self._observed(name),
            **self._verification(),
            "DATABASE_URL": postgres.service_url(self.home, self.ports, self.credentials, name),
            "NATS_URL": broker.url(self.ports, self.credentials),
            "GRPC_LISTEN": self.ports.address(name),
            "INTERNAL_KEY_FILE": str(self.credentials.internal_key(f"service:{name}")),
            "CURSOR_KEY_FILE": str(self.credentials.cursor_key(name)),
        }

    def _observed(self, name: str) -> dict[str, str]:
        return {"METRICS_LISTEN": self.ports.address(f"{name}.metrics")}

    def _verification(self) -> dict[str, str]:
        return {
            "JWT_JWKS": str(self.credentials.users_jwks),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "INTERNAL_JWKS": str(self.credentials.internal_jwks),
        }

    def _artifacts(self) -> str:
        return (self.home.data / "store").as_uri()

    def _basics(self) -> dict[str, str]:
        """An environment of its own for each process: what the caller's shell holds is none of theirs."""
        known = {
            name: os.environ[name] for name in (*PASSED_ON, "PATH", "TZ", "TMPDIR") if name in os.environ
        }
        return {"LANG": "C.UTF-8", "HOME": str(self.home.root), STACK_MARK: str(self.home.root), **known}


STACK_MARK = "LOCAL_STACK_HOME"
"""In the environment of every process of a stack, naming its home, so that none is overlooked at the end."""


def _command(name: str) -> str:
    """A console script beside this Python.

    Raises LocalStackError where it is not installed.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise LocalStackError(f"{path} is not installed; run `make setup`")
    return str(path)
