"""What a caller may see, as a condition of queries."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from headrace_chassis.errors import WorkspaceForbidden
from headrace_chassis.identity import Principal


@dataclass(frozen=True)
class Scope:
    """A tenant, and those of its workspaces that count; None means all of them."""

    tenant: UUID
    workspaces: frozenset[UUID] | None = None

    def allows(self, workspace: UUID) -> bool:
        """Whether a workspace of the tenant counts."""
        return self.workspaces is None or workspace in self.workspaces


def scope_of(principal: Principal) -> Scope:
    """All that the caller may see."""
    return Scope(principal.tenant, principal.workspaces)


def listed(principal: Principal, workspace_id: UUID | None) -> Scope:
    """What a list shows: the workspace it names, or all that the caller may use.

    Raises:
        WorkspaceForbidden: the caller may not use the one that it names.
    """
    if workspace_id is None:
        return scope_of(principal)
    if not principal.may_use(workspace_id):
        raise WorkspaceForbidden(workspace_id)
    return Scope(principal.tenant, frozenset({workspace_id}))


class Conditions:
    """The conditions of one query, with the values that they are bound to."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._parts: list[str] = []

    def bind(self, value: object) -> str:
        """The placeholder of a value."""
        self.values.append(value)
        return f"${len(self.values)}"

    def add(self, pattern: str, *values: object) -> None:
        """Demands a condition; each `{}` in it stands for the next value."""
        self._parts.append(pattern.format(*(self.bind(value) for value in values)))

    def within(self, scope: Scope, alias: str = "s") -> None:
        """Demands that rows are in scope."""
        self.add(f"{alias}.tenant = {{}}", scope.tenant)
        if scope.workspaces is not None:
            self.add(f"{alias}.workspace_id = ANY({{}}::uuid[])", sorted(scope.workspaces))

    def __str__(self) -> str:
        return " AND ".join(self._parts)
