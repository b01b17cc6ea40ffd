"""What the metadata service reads from its environment."""

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from headrace_chassis.settings import ServiceSettings, SettingsError
from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from headrace_metadata.domain.secret_references import ReferencePolicy
from headrace_metadata.keyring import Keyring, KeyringError


class MetadataSettings(ServiceSettings):
    """The settings of the metadata service."""

    execution_target: str = Field(description="host:port of the execution service, or dns:///name:port.")
    scheduler_target: str = Field(description="host:port of the scheduler service, or dns:///name:port.")
    encryption_keys_file: FilePath | None = Field(
        None,
        description='The keyring that encrypts secrets, as JSON: {"active": "k2", "keys": {"k1": "<32 bytes '
        'in base64>", "k2": "..."}}. The active key encrypts, all decrypt.',
    )
    encryption_keys: SecretStr | None = Field(
        None, repr=False, description="The same keyring as text, where there is no file."
    )
    secret_env_prefix: str = Field(
        "HEADRACE_SECRET_",
        min_length=1,
        description="What the variables (of the workers) that connections name as env:// must begin with.",
    )
    secret_file_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="The folders (on the workers) under which connections may name files as file://, "
        "separated by colons; empty allows none.",
    )
    definition_max_bytes: int = Field(
        1024 * 1024, ge=1024, le=8 * 1024 * 1024, description="The longest definition, in bytes of UTF-8."
    )
    api_keys_per_tenant: int = Field(
        200, ge=1, le=100_000, description="How many valid API keys a tenant may have at a time."
    )
    definition_threads: int = Field(
        2, ge=1, le=32, description="How many definitions are checked at the same time."
    )

    @field_validator("secret_file_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("secret_file_roots")
    @classmethod
    def _absolute_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for root in value:
            if not root.is_absolute():
                raise ValueError("each folder must be an absolute path")
        return value

    @model_validator(mode="after")
    def _one_keyring(self) -> Self:
        if (self.encryption_keys_file is None) == (self.encryption_keys is None):
            raise ValueError("give either ENCRYPTION_KEYS_FILE or ENCRYPTION_KEYS")
        return self

    def keyring(self) -> Keyring:
        """The keyring.

        Raises:
            SettingsError: it is malformed; the message names the variable and key ids, never keys.
        """
        try:
            if self.encryption_keys_file is not None:
                return Keyring.read(self.encryption_keys_file)
            if self.encryption_keys is not None:
                return Keyring.parse(self.encryption_keys.get_secret_value())
        except KeyringError as error:
            name = "ENCRYPTION_KEYS" if self.encryption_keys_file is None else "ENCRYPTION_KEYS_FILE"
            raise SettingsError(f"{name}: {error}") from None
        raise AssertionError("the validator demands one of the two")

    def reference_policy(self) -> ReferencePolicy:
        """Which secret references connections may hold."""
        return ReferencePolicy(
            self.secret_env_prefix, tuple(PurePosixPath(root) for root in self.secret_file_roots)
        )
