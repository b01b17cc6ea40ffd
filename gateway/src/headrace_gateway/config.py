"""The gateway's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from headrace_chassis.settings import AuthSettings, ObservedSettings
from pydantic import Field, field_validator
from pydantic_settings import NoDecode


class GatewaySettings(AuthSettings, ObservedSettings):
    """What the gateway needs. A service without a target is not served: its paths are 404."""

    http_listen: str = Field(
        "127.0.0.1:8082", description="host:port on which REST is served; port 0 picks one."
    )
    metadata_target: str | None = Field(None, description="host:port of the metadata service.")
    execution_target: str | None = Field(None, description="host:port of the execution service.")
    scheduler_target: str | None = Field(None, description="host:port of the scheduler service.")
    channels_per_target: int = Field(
        1, ge=1, le=16, description="How many connections are held to each service."
    )
    default_deadline_seconds: float = Field(
        15.0,
        gt=0,
        le=600,
        description="How long a call may take where its contract says nothing else, in seconds.",
    )
    max_body_bytes: int = Field(
        2 * 1024 * 1024, ge=1024, le=15 * 1024 * 1024, description="The largest body, in bytes."
    )
    body_timeout_seconds: float = Field(
        30.0, gt=0, description="How long a body may take to arrive, in seconds."
    )
    header_timeout_seconds: float = Field(
        15.0, gt=0, description="How long the head of a request may take to arrive, in seconds."
    )
    max_concurrent_bodies: int = Field(
        256, ge=1, description="How many bodies may be read at once; more are answered with 503."
    )
    rate_limit_per_second: float = Field(
        1000.0, gt=0, description="How many requests a second each caller is admitted for."
    )
    rate_limit_burst: int = Field(
        1000, ge=1, description="How many requests of a caller are admitted at once."
    )
    max_streams: int = Field(
        10_000, ge=1, description="How many streams may be open at once; more are answered with 503."
    )
    max_streams_per_caller: int = Field(
        2000, ge=1, description="How many streams a caller may have open at once; more are answered with 429."
    )
    stall_seconds: float = Field(
        60.0, gt=0, description="How long a client may take to read a piece of a stream, in seconds."
    )
    ping_seconds: float = Field(
        20.0,
        gt=0,
        description="How often clients of WebSockets are pinged, and how long they may take to answer, in "
        "seconds.",
    )
    gzip_minimum_bytes: int = Field(
        8 * 1024, ge=0, description="Answers of at least so many bytes are compressed."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose scripts may call the API, comma-separated; empty: none."
    )
    access_log: Literal["all", "failures", "none"] = Field(
        "failures", description="Which requests are logged: all, those that failed with 5xx, or none."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    def targets(self) -> Mapping[str, str]:
        """Returns the addresses of the services that are served, by the name of their process."""
        suffix = "_target"
        return {
            name.removesuffix(suffix): target
            for name in type(self).model_fields
            if name.endswith(suffix) and isinstance(target := getattr(self, name), str)
        }
