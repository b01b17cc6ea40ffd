"""Workspaces: where pipelines and connections of a tenant live, and the calendar their schedules start
from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

DEFAULT_SLUG = "default"
DEFAULT_TIMEZONE = "UTC"

_EMPTY: Mapping[str, Any] = {
    "country": None,
    "subdivision": None,
    "holidays": (),
    "timezone": DEFAULT_TIMEZONE,
    "deploy_on_push": False,
    "allowed_variables": (),
}


@dataclass(frozen=True)
class Workspace:
    """A workspace; its slug never changes."""

    id: UUID
    tenant: UUID
    slug: str
    name: str
    country: str | None = None
    subdivision: str | None = None
    holidays: tuple[date, ...] = ()
    timezone: str = DEFAULT_TIMEZONE
    deploy_on_push: bool = False
    allowed_variables: tuple[str, ...] = ()
    """The names of variables that every run may be given."""
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True)
class WorkspaceChange:
    """What an update asks for: fields given anew, and fields to clear."""

    given: Mapping[str, Any] = field(default_factory=dict)
    cleared: frozenset[str] = frozenset()

    def after(self, before: Workspace) -> Workspace:
        """The workspace with this change; a cleared name is its slug again."""
        empty = {**_EMPTY, "name": before.slug}
        return replace(before, **{**{name: empty[name] for name in self.cleared}, **self.given})


def default_workspace(identity: UUID, tenant: UUID) -> Workspace:
    """The workspace that a tenant gets at first use."""
    return Workspace(identity, tenant, DEFAULT_SLUG, DEFAULT_SLUG)
