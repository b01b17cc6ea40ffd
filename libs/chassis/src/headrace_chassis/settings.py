"""Settings: environment variables, read once at start into one typed, documented object a process.

A missing or malformed value, a secret file that does not exist, and a misspelt `HEADRACE_*` variable fail the
start with the name of the variable. Values are never part of such an error, since they may be secrets.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import Field, FilePath, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

OWN_PREFIX = "HEADRACE_"

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""The asymmetric algorithms (RFC 7518, RFC 8037) that may be allowed for users' tokens."""


class SettingsError(Exception):
    """The environment does not hold what the process needs; the message names each variable."""


class Settings(BaseSettings):
    """The root of all settings: how they are read, and how mistakes in them are told."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True, env_ignore_empty=True
    )

    tolerated: ClassVar[tuple[str, ...]] = ("HEADRACE_HOME", "HEADRACE_GATEWAY_PORT", "HEADRACE_SECRET_*")
    """`HEADRACE_*` variables that concern other processes: the local stack's, and secrets by reference."""


class AuthSettings(Settings):
    """Whose tokens are believed."""

    jwt_jwks: str | None = Field(None, description="The users' JWKS: a path, or an https:// or http:// URL.")
    jwt_issuer: str = Field(description="The `iss` that users' tokens must bear.")
    jwt_audience: str = Field(description="The `aud` that users' tokens must bear.")
    jwt_algorithms: Annotated[tuple[str, ...], NoDecode] = Field(
        ("RS256", "ES256", "EdDSA"), description="The algorithms that users' tokens may use, comma-separated."
    )
    jwt_hs256_secret_file: FilePath | None = Field(
        None, description="A file with the shared secret of HS256 tokens; they are refused without it."
    )
    internal_jwks: FilePath = Field(
        description="The JWKS file with the public keys of services and workers; `kid` is service:<name> or "
        "worker:<name>."
    )

    @field_validator("jwt_algorithms", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("jwt_algorithms")
    @classmethod
    def _asymmetric(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in ALGORITHMS:
                raise ValueError(f"{name!r} is not one of {', '.join(ALGORITHMS)}")
        return value

    @field_validator("jwt_jwks")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None and not is_url(value) and not Path(value).is_file():
            raise ValueError("the file does not exist")
        return value

    @model_validator(mode="after")
    def _some_key(self) -> Self:
        if self.jwt_jwks is None and self.jwt_hs256_secret_file is None:
            raise ValueError(
                "JWT_JWKS (or JWT_HS256_SECRET_FILE) must be set: no user's token could be verified"
            )
        return self


class ObservedSettings(Settings):
    """How a process tells what it does."""

    metrics_listen: str | None = Field(
        None,
        description="host:port of a listener with /metrics (Prometheus), /healthz and /readyz; absent: none.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is logged."
    )
    log_format: Literal["json", "console"] = Field("json", description="JSON lines, or text for people.")
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="Where traces are sent by OTLP over gRPC; absent: nowhere (the context still travels).",
    )
    drain_seconds: float = Field(
        20.0, ge=0, le=600, description="How long a shutdown waits for running calls, in seconds."
    )


class ServerSettings(AuthSettings, ObservedSettings):
    """What a gRPC server needs."""

    grpc_listen: str = Field(
        "127.0.0.1:9001", description="host:port on which the service is served; port 0 picks one."
    )
    cursor_key_file: FilePath = Field(
        description="A file with 32 or more random bytes, which all replicas share; it signs page cursors, "
        "and keys the hashes by which repeated requests are known. A new key voids both."
    )
    grpc_reflection: bool = Field(False, description="Whether gRPC reflection is served.")


class ServiceSettings(ServerSettings):
    """What every gRPC service needs."""

    database_url: str = Field(
        repr=False, description="The service's own database: postgresql://user:password@host:port/name."
    )
    database_pool_size: int = Field(
        10, ge=1, le=200, description="The most database connections of this process."
    )
    nats_url: str | None = Field(
        None,
        repr=False,
        description="nats://user:password@host:port; absent: events travel by polling alone.",
    )
    internal_key_file: FilePath = Field(
        description="The service's Ed25519 private key (PEM, PKCS #8); its public key is in INTERNAL_JWKS."
    )

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        if not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("a URL that begins with postgresql:// is expected")
        return value


S = TypeVar("S", bound=Settings)


def load(kind: type[S]) -> S:
    """Reads the settings of a process from its environment.

    Raises SettingsError naming every variable that is missing, malformed, or unknown though it begins with
    HEADRACE_.
    """
    problems = _unknown(kind, os.environ)
    settings: S | None = None
    try:
        settings = kind()
    except ValidationError as invalid:
        problems += [
            f"{'.'.join(str(part) for part in error['loc']).upper() or 'settings'}: {error['msg']}"
            for error in invalid.errors(include_input=False, include_url=False, include_context=False)
        ]
    if settings is None or problems:
        raise SettingsError("; ".join(problems))
    return settings


def is_url(value: str) -> bool:
    """Tells whether a setting that takes a path or a URL holds a URL."""
    return value.startswith(("https://", "http://"))


def _unknown(kind: type[Settings], environment: Mapping[str, str]) -> list[str]:
    known = {name.upper() for name in kind.model_fields}
    return [
        f"{name}: there is no such setting"
        for name in sorted(environment)
        if name.startswith(OWN_PREFIX) and name not in known and not _is_tolerated(kind, name)
    ]


def _is_tolerated(kind: type[Settings], name: str) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in kind.tolerated
    )
