"""The settings of execution: environment variables, read once."""

import ipaddress
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from headrace_artifacts.urls import check_url
from headrace_chassis.settings import ServiceSettings, is_url
from headrace_outbound.guard import AddressGuard
from pydantic import Field, FilePath, field_validator, model_validator
from pydantic_settings import NoDecode

from headrace_execution.acceptance.compiling import Limits
from headrace_execution.domain.cost import Tariff, read_tariff
from headrace_execution.domain.logs import LogLimits
from headrace_execution.domain.moment import Patience
from headrace_execution.loops.artifact_sweeper import Retention
from headrace_execution.notifying.mails import MailServer
from headrace_execution.openlineage.endpoints import file_path
from headrace_execution.workers.leases import LeaseTerms


class ExecutionSettings(ServiceSettings):
    """What execution needs beside what every service needs."""

    metadata_target: str = Field(description="Where metadata is served: host:port, or dns:///name:port.")
    scheduler_target: str | None = Field(
        None,
        description="Where the scheduler is served; absent: nowhere, so no alerts of missed schedules.",
    )
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
        90.0,
        ge=1,
        le=3650,
        description="How long resolved alerts and notifications that were given up are kept.",
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

    notify_allow_http: bool = Field(
        False, description="Whether notifications may go to http:// URLs; otherwise to https:// only."
    )
    notify_allow_loopback: bool = Field(
        False, description="Whether notifications may go to loopback addresses."
    )
    notify_allow_addresses: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks (CIDR) beyond the public ones that notifications may go to, comma-separated.",
    )
    notify_deny_endpoints: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="host:port of servers that notifications never go to, comma-separated, beside "
        "execution's own PostgreSQL and NATS.",
    )
    notify_timeout_seconds: float = Field(
        15.0, gt=0, le=30, description="The longest that one try of a webhook may take, in seconds."
    )
    smtp_host: str | None = Field(
        None, description="The SMTP server that sends notifications by mail; absent: none are sent so."
    )
    smtp_port: int = Field(587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="How the connection to it is protected: starttls, tls from its beginning, or none.",
    )
    smtp_username: str | None = Field(None, description="The user to log in there as; absent: without login.")
    smtp_password_file: FilePath | None = Field(None, description="A file with that user's password.")
    mail_from: str | None = Field(None, description="The address that mails are from; needed with SMTP_HOST.")

    @field_validator("notify_allow_addresses", "notify_deny_endpoints", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("notify_allow_addresses")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @field_validator("notify_deny_endpoints")
    @classmethod
    def _endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            host, _, port = text.rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError("host:port is expected")
        return value

    @model_validator(mode="after")
    def _mails_have_a_sender(self) -> Self:
        if self.smtp_host is not None and (self.mail_from is None or "@" not in self.mail_from):
            raise ValueError("MAIL_FROM: a mail address is expected where SMTP_HOST is set")
        return self

    @field_validator("artifacts_url")
    @classmethod
    def _names_a_store(cls, value: str) -> str:
        return check_url(value)

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("HEARTBEAT_SECONDS: at most half of LEASE_SECONDS is expected")
        return self

    def notification_guard(self) -> AddressGuard:
        """Where notifications may go."""
        denied = [own_endpoint(url) for url in (self.database_url, self.nats_url) if url is not None]
        denied += [own_endpoint(f"//{text}") for text in self.notify_deny_endpoints]
        return AddressGuard(
            allow_loopback=self.notify_allow_loopback,
            allowed_networks=self.notify_allow_addresses,
            denied_endpoints=tuple(endpoint for endpoint in denied if endpoint is not None),
        )

    def mail_server(self) -> MailServer | None:
        """The mail server, where one is set up."""
        if self.smtp_host is None or self.mail_from is None:
            return None
        file = self.smtp_password_file
        return MailServer(
            host=self.smtp_host,
            port=self.smtp_port,
            security=self.smtp_security,
            sender=self.mail_from,
            username=self.smtp_username,
            password=file.read_text().strip() if file is not None else None,
        )

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


_USUAL_PORTS = {"postgresql": 5432, "postgres": 5432, "nats": 4222, "tls": 4222}


def own_endpoint(url: str) -> tuple[str, int] | None:
    """The host and port that a URL names; None where it names a socket in a folder."""
    parts = urlsplit(url)
    port = parts.port or _USUAL_PORTS.get(parts.scheme)
    return (parts.hostname, port) if parts.hostname and port else None
