"""The worker's settings: environment variables, each with its meaning and unit."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Self

from headrace_artifacts.urls import check_url
from headrace_chassis.settings import ObservedSettings
from pydantic import Field, FilePath, field_validator, model_validator
from pydantic_settings import NoDecode

from headrace_worker.engine.options import EngineOptions

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_ENGINE_SHARE = 0.75
"""The part of a slot's memory that DuckDB may manage; the rest is for Python, drivers and buffers."""

_List = Annotated[tuple[str, ...], NoDecode]
_Paths = Annotated[tuple[Path, ...], NoDecode]


class WorkerSettings(ObservedSettings):
    """What a worker needs: where execution is, who it is, and what stages may use and reach."""

    execution_target: str = Field(
        description="Where execution is served: host:port, or dns:///name:port for all its replicas."
    )
    worker_name: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="The worker's name; its key in the internal JWKS is `worker:<name>`. "
        "Default: the host's name.",
    )
    worker_key_file: FilePath = Field(description="The worker's Ed25519 private key (PEM, PKCS #8).")
    worker_slots: int = Field(4, ge=1, le=256, description="How many stages run at once, each in a process.")
    worker_warm_processes: int = Field(
        1, ge=0, le=256, description="How many processes are kept forked for stages to come while it is idle."
    )
    worker_memory: Annotated[int, NoDecode] = Field(
        2 * 2**30, ge=128 * 2**20, description="The memory for all slots together, as in 2GB or 512MiB."
    )
    worker_threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=256,
        description="Threads of one stage's engine.",
    )
    worker_temp_dir: Path = Field(
        Path("/tmp/headrace-worker"),  # noqa: S108 - made with mode 0700, and each worker has a folder of its own in it
        description="Where stages spill what does not fit into memory; emptied after each.",
    )
    worker_max_temp: Annotated[int, NoDecode] = Field(
        64 * 2**30, ge=2**20, description="The most that one stage may spill, as in 64GB."
    )
    worker_max_file: Annotated[int, NoDecode] = Field(
        0, ge=0, description="The largest file that a stage may write, as in 10GB; 0 is no limit."
    )
    worker_artifacts_dir: Path = Field(
        Path("/tmp/headrace-artifacts"),  # noqa: S108 - made with mode 0700
        description="Where materialised tasks are kept for later stages; workers share it.",
    )
    worker_artifacts_hours: float = Field(
        168.0, gt=0, description="After how many hours artifacts of a run are removed."
    )
    worker_max_output: Annotated[int, NoDecode] = Field(
        10 * 2**30, ge=0, description="The largest output of a run, as in 10GB; 0 is no limit."
    )
    artifacts_url: str = Field(
        "file:///tmp/headrace-store",
        description="Where logs and outputs of runs are kept: file:///folder, s3://bucket/prefix or "
        "gs://bucket/prefix, the same for execution and all workers.",
    )
    worker_file_roots: _Paths = Field(
        (),
        description="The folders in which sources and sinks may use files, comma-separated; none: no files.",
    )
    worker_allow_loopback: bool = Field(False, description="Whether stages may reach loopback addresses.")
    worker_allow_addresses: _List = Field(
        (), description="Networks (CIDR) beyond the public ones that stages may reach, comma-separated."
    )
    worker_deny_endpoints: _List = Field(
        (), description="host:port of servers that stages never reach: Headrace's own PostgreSQL and NATS."
    )
    worker_connect_timeout: float = Field(
        10.0, gt=0, le=300, description="How long connecting to a source or target may take, in seconds."
    )
    worker_secret_env_prefix: str = Field(
        "HEADRACE_SECRET_",
        min_length=1,
        description="What names must begin with in env:// secret references.",
    )
    worker_secret_roots: _Paths = Field(
        (),
        description="The folders that file:// secret references may point into, comma-separated.",
    )
    worker_definition_env: _List = Field(
        (), description="Names of variables that definitions may use as ${env.NAME}, comma-separated."
    )

    @field_validator(
        "worker_file_roots",
        "worker_allow_addresses",
        "worker_deny_endpoints",
        "worker_secret_roots",
        "worker_definition_env",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator(
        "worker_memory", "worker_max_temp", "worker_max_file", "worker_max_output", mode="before"
    )
    @classmethod
    def _size(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("a size such as 512MiB or 2GB is expected")
        return int(match[1]) * _UNITS[match[2].lower()]

    @field_validator("artifacts_url")
    @classmethod
    def _names_a_store(cls, value: str) -> str:
        return check_url(value)

    @field_validator("worker_deny_endpoints")
    @classmethod
    def _endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in value:
            host, _, port = endpoint.rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError(f"{endpoint!r} is not host:port")
        return value

    @field_validator("worker_allow_addresses")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        import ipaddress

        for network in value:
            ipaddress.ip_network(network)  # its ValueError says what is wrong
        return value

    @model_validator(mode="after")
    def _warm_within_slots(self) -> Self:
        if self.worker_warm_processes > self.worker_slots:
            raise ValueError("WORKER_WARM_PROCESSES is more than WORKER_SLOTS")
        return self

    def engine_options(self, temp_dir: Path) -> EngineOptions:
        """What of this a stage process needs to know; `temp_dir` is this worker's own folder."""
        return EngineOptions(
            temp_dir=str(temp_dir),
            artifacts_dir=str(self.worker_artifacts_dir),
            worker_name=self.worker_name,
            file_roots=tuple(str(root) for root in self.worker_file_roots),
            memory_bytes=int(self.worker_memory / self.worker_slots * _ENGINE_SHARE),
            max_temp_bytes=self.worker_max_temp,
            max_file_bytes=self.worker_max_file,
            max_output_bytes=self.worker_max_output,
            threads=self.worker_threads,
            connect_timeout=self.worker_connect_timeout,
            definition_environment={
                name: os.environ[name] for name in self.worker_definition_env if name in os.environ
            },
            allow_loopback=self.worker_allow_loopback,
            allow_networks=self.worker_allow_addresses,
            deny_endpoints=self.worker_deny_endpoints,
        )
