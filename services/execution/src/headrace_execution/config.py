"""The settings of execution: environment variables, read once."""

from datetime import timedelta
from typing import Self
from urllib.parse import urlsplit

from headrace_artifacts.urls import check_url
from headrace_chassis.settings import ServiceSettings, is_url
from pydantic import Field, FilePath, field_validator, model_validator

from headrace_execution.acceptance.compiling import Limits
from headrace_execution.domain.cost import Tariff, read_tariff
from headrace_execution.domain.logs import LogLimits
from headrace_execution.domain.moment import Patience
from headrace_execution.loops.artifact_sweeper import Retention
from headrace_execution.openlineage.endpoints import file_path
from headrace_execution.workers.leases import LeaseTerms


class ExecutionSettings(ServiceSettings):
    """What execution needs beside what every service needs."""

    metadata_target: str = Field(description="Where metadata is served: host:port, or dns:///name:port.")
    lease_seconds: float = Field(
        15.0, ge=1, le=600, description="How long a worker's leases last without a heartbeat."
    )
    heartbeat_seconds: float = Field(
        3.0, ge=0.2, le=120, description="How often a worker renews them; well below LEASE_SECONDS."
    )
    max_lost_workers: int = Field(
        3, ge=1, le=100, description="How often a stage may lose its worker before it is parked as failed."
    )
    queue_timeout_seconds: float | None = Field(
        None, gt=0, description="The longest that a run may wait for its start; absent: any time."
    )
    run_timeout_seconds: float | None = Field(
        None,
        gt=0,
        description="The longest that a run may take from its start, waiting for signals included; absent: "
        "any time.",
    )
    stop_grace_seconds: float = Field(
        10.0, gt=0, le=600, description="What a worker is given to stop an assignment before it kills it."
    )
    settle_limit_seconds: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="How long it is tried to settle the loads of a stage whose worker is gone.",
    )

    start_retention_days: float = Field(
        30.0,
        ge=1,
        le=3650,
        description="How long it is remembered what was decided of starts that other services asked for.",
    )
    alert_retention_days: float = Field(
        90.0, ge=1, le=3650, description="How long alerts are kept after they were resolved."
    )
    stream_ticket_seconds: float = Field(
        30.0, ge=1, le=300, description="How long a ticket for the stream of a run can be used."
    )
    max_watches: int = Field(
        5000, ge=1, description="How many callers may follow runs at once; more are answered with 503."
    )
    max_watches_per_caller: int = Field(
        2000, ge=1, description="How many runs a caller may follow at once; more are answered with 429."
    )

    artifacts_url: str = Field(
        "file:///tmp/headrace-store",
        description="Where logs and outputs of runs are kept: file:///folder, s3://bucket/prefix or "
        "gs://bucket/prefix, the same for execution and all workers.",
    )
    log_limit_kb: int = Field(
        4096,
        ge=64,
        le=1024 * 1024,
        description="How much of the log of one attempt is kept, in kilobytes; of a longer one, the middle "
        "is left out.",
    )

    log_retention_days: float = Field(
        90.0,
        ge=0,
        description="How long logs of runs are kept after their last line, in days; 0: as long as their "
        "pipeline.",
    )
    output_retention_days: float = Field(
        90.0,
        ge=0,
        description="How long outputs of runs are kept after they landed, in days; 0: as long as their "
        "pipeline.",
    )
    max_followed_logs: int = Field(
        500, ge=1, description="How many logs may be followed at once; more are answered with 503."
    )
    max_followed_logs_per_caller: int = Field(
        50, ge=1, description="How many logs a caller may follow at once; more are answered with 429."
    )
    max_downloads: int = Field(
        200, ge=1, description="How many outputs may be downloaded at once; more are answered with 503."
    )
    max_downloads_per_caller: int = Field(
        20, ge=1, description="How many outputs a caller may download at once; more are answered with 429."
    )
    max_dry_runs: int = Field(
        40, ge=1, description="How many dry runs may be under way at once; more are answered with 503."
    )
    max_dry_runs_per_caller: int = Field(
        8, ge=1, description="How many dry runs a caller may have at once; more are answered with 429."
    )

    cost_currency: str = Field(
        "USD", pattern="[A-Z]{3}", description="The currency that costs are told in (ISO 4217)."
    )
    cost_rates: str = Field(
        "compute=0.000014,storage=0.023,network=0.01",
        description="What a second of a worker's slot, a gigabyte landed, and a gigabyte read or landed "
        "cost. New rates hold from a day on (UTC), so that what was before keeps its cost: "
        "`compute=…,storage=…,network=…; 2027-01-01: compute=…,storage=…,network=…`.",
    )

    openlineage_url: str | None = Field(
        None,
        repr=False,
        description="Where OpenLineage events of runs go: the http:// or https:// address that takes them, "
        "path included, or file:///folder/file for JSON lines; absent: nowhere. Private networks may be "
        "reached, metadata services of clouds and Headrace's own database and NATS never.",
    )
    openlineage_api_key_file: FilePath | None = Field(
        None, description="A file with the API key that is sent along as a bearer token."
    )
    openlineage_namespace: str = Field(
        "headrace/{tenant}",
        min_length=1,
        description="The namespace of pipelines as OpenLineage's jobs; {tenant} stands for the tenant's id.",
    )

    @field_validator("cost_rates")
    @classmethod
    def _are_rates(cls, value: str) -> str:
        read_tariff("", value)
        return value

    @field_validator("openlineage_url")
    @classmethod
    def _takes_events(cls, value: str | None) -> str | None:
        if value is not None and not is_url(value) and file_path(value) is None:
            raise ValueError("a URL that begins with https://, http:// or file:/// is expected")
        if value is not None and "@" in urlsplit(value).netloc:
            raise ValueError(
                "the URL must not hold a user or password: OPENLINEAGE_API_KEY_FILE names the key"
            )
        return value

    @field_validator("artifacts_url")
    @classmethod
    def _names_a_store(cls, value: str) -> str:
        return check_url(value)

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("HEARTBEAT_SECONDS: at most half of LEASE_SECONDS is expected")
        return self

    def lease_terms(self) -> LeaseTerms:
        """How long leases last, and how often they are renewed."""
        return LeaseTerms(timedelta(seconds=self.lease_seconds), timedelta(seconds=self.heartbeat_seconds))

    def tariff(self) -> Tariff:
        """What things cost, and from when on."""
        return read_tariff(self.cost_currency, self.cost_rates)

    def log_limits(self) -> LogLimits:
        """How much of a log is kept: half of it from the beginning, half from the end."""
        half = self.log_limit_kb * 1024 // 2
        return LogLimits(head=half, tail=half)

    def retention(self) -> Retention:
        """How long artifacts are kept."""
        return Retention(_days(self.log_retention_days), _days(self.output_retention_days))

    def patience(self) -> Patience:
        """How long is waited for what may never come."""
        grace = timedelta(seconds=self.stop_grace_seconds)
        return Patience(
            stop_grace=grace,
            stop_limit=grace * 2,
            settle_limit=timedelta(seconds=self.settle_limit_seconds),
        )

    def limits(self) -> Limits:
        """What every run is allowed."""
        return Limits(
            max_lost=self.max_lost_workers,
            queue_timeout=_span(self.queue_timeout_seconds),
            total_timeout=_span(self.run_timeout_seconds),
        )


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _days(days: float) -> timedelta | None:
    return timedelta(days=days) if days else None
