"""What a version of a pipeline holds, and what changing it comes to.

A setting has up to three sources: the API, the definition's text, and a default. The API wins over the text.
What the API gave is kept apart from what the text declares, so that clearing a field lets the text's value
show again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from headrace_definition.notifying import secret_name

DEFAULT_MAX_RETRIES = 3
DEFAULT_RETRY_DELAY_SECONDS = 60
DEFAULT_TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Notification:
    """Whom to tell of which ends of a run. `on` and `type` are the words of the contract: FAILED, WEBHOOK."""

    on: tuple[str, ...]
    type: str
    target: str
    signing_secret: str | None = None
    """A reference to the secret that a webhook is signed with: ${secrets.name}."""

    @property
    def secrets(self) -> frozenset[str]:
        """The names of the connections whose secrets it needs."""
        names = (secret_name(text) for text in (self.target, self.signing_secret) if text is not None)
        return frozenset(name for name in names if name is not None)


@dataclass(frozen=True)
class Declared:
    """The settings that a definition's text declares itself; None where it is silent."""

    description: str | None = None
    schedule_cron: str | None = None
    tags: tuple[str, ...] | None = None
    max_retries: int | None = None
    retry_delay_seconds: int | None = None
    timeout_seconds: int | None = None
    notifications: tuple[Notification, ...] | None = None
    version_label: str | None = None


@dataclass(frozen=True)
class Given(Declared):
    """The settings that were given through the API; None where they were not."""

    source_connection_id: UUID | None = None
    target_connection_id: UUID | None = None
    is_active: bool | None = None
    layout: str | None = None
    """How an editor draws the pipeline: JSON text as it was given."""
    connector_id: UUID | None = None
    schema_id: UUID | None = None


@dataclass(frozen=True)
class Settings:
    """The settings in effect: given, else declared, else the default."""

    description: str | None
    schedule_cron: str | None
    tags: tuple[str, ...]
    max_retries: int
    retry_delay_seconds: int
    timeout_seconds: int
    notifications: tuple[Notification, ...]
    version_label: str | None
    source_connection_id: UUID | None
    target_connection_id: UUID | None
    is_active: bool
    layout: str | None
    connector_id: UUID | None
    schema_id: UUID | None


@dataclass(frozen=True)
class Content:
    """All that a version holds. Two equal contents are the same version."""

    name: str
    text: str
    given: Given
    declared: Declared

    @property
    def settings(self) -> Settings:
        """The settings in effect."""
        given, declared = self.given, self.declared

        def first(field: str, default: Any) -> Any:
            for source in (given, declared):
                value = getattr(source, field)
                if value is not None:
                    return value
            return default

        return Settings(
            description=first("description", None),
            schedule_cron=first("schedule_cron", None),
            tags=first("tags", ()),
            max_retries=first("max_retries", DEFAULT_MAX_RETRIES),
            retry_delay_seconds=first("retry_delay_seconds", DEFAULT_RETRY_DELAY_SECONDS),
            timeout_seconds=first("timeout_seconds", DEFAULT_TIMEOUT_SECONDS),
            notifications=first("notifications", ()),
            version_label=first("version_label", None),
            source_connection_id=given.source_connection_id,
            target_connection_id=given.target_connection_id,
            is_active=given.is_active if given.is_active is not None else True,
            layout=given.layout,
            connector_id=given.connector_id,
            schema_id=given.schema_id,
        )

    @property
    def secrets(self) -> frozenset[str]:
        """The names of the connections whose secrets its notifications need."""
        return frozenset().union(*(each.secrets for each in self.settings.notifications))

    def overridden(self) -> tuple[str, ...]:
        """The settings that the text declares and the API gives otherwise."""
        return tuple(
            field.name
            for field in fields(Declared)
            if getattr(self.declared, field.name) is not None
            and getattr(self.given, field.name) is not None
            and getattr(self.declared, field.name) != getattr(self.given, field.name)
        )


@dataclass(frozen=True)
class Change:
    """What an update asks for: a new name, a new text, settings given anew, and settings to clear."""

    name: str | None = None
    text: str | None = None
    given: Mapping[str, Any] | None = None
    cleared: frozenset[str] = frozenset()

    def given_after(self, before: Given) -> Given:
        """The settings given through the API, after this change."""
        return replace(before, **{**dict.fromkeys(self.cleared), **(self.given or {})})


@dataclass(frozen=True)
class LastRun:
    """The latest run of a pipeline, by the time of its acceptance."""

    run_id: UUID
    status: str
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Creator:
    """Who creates a pipeline: the subject of their token, and what they call themselves beside it."""

    subject: str
    label: str | None = None


@dataclass(frozen=True)
class Version:
    """An immutable version. Where it was read without its text, that is empty, and its layout None."""

    pipeline_id: UUID
    number: int
    content: Content
    created_at: datetime
    created_by: str


@dataclass(frozen=True)
class Pipeline:
    """A pipeline at its latest version."""

    id: UUID
    tenant: UUID
    workspace_id: UUID
    latest: Version
    status: str
    last_run: LastRun | None
    next_run_at: datetime | None
    closing: bool
    created_at: datetime
    updated_at: datetime
    created_by: str
    created_by_label: str | None
    """What its creator called themselves."""

    @property
    def version(self) -> int:
        """The number of the latest version."""
        return self.latest.number


def clean_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags without repeats, in the order given."""
    return tuple(dict.fromkeys(tags))
