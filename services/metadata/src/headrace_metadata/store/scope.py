"""What a caller may see, as a condition of every query."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY


@dataclass(frozen=True)
class Scope:
    """A tenant, and those of its workspaces that count; None means all of them."""

    tenant: UUID
    workspaces: frozenset[UUID] | None = None

    def holds(self, tenant: sa.Column[Any], workspace: sa.Column[Any]) -> sa.ColumnElement[bool]:
        """The condition that a row is in scope."""
        if self.workspaces is None:
            return tenant == self.tenant
        return sa.and_(tenant == self.tenant, workspace.in_(sorted(self.workspaces)))


def newest_of_scope(
    scope: Scope,
    columns: Sequence[sa.Column[Any]],
    tenant: sa.Column[Any],
    workspace: sa.Column[Any],
    order: Sequence[sa.ColumnElement[Any]],
    conditions: Sequence[sa.ColumnElement[bool]],
    source: sa.FromClause,
    reach: int,
) -> sa.Subquery:
    """The first `reach` rows of a scope in an order that an index per workspace, and one per tenant, has.

    With several workspaces, the first rows of each are taken and merged: the cost follows the page, not the
    number of rows that the workspaces, or the rest of the tenant, have.
    """
    query = sa.select(*columns).select_from(source).where(*conditions).order_by(*order).limit(reach)
    if scope.workspaces is None:
        return query.where(tenant == scope.tenant).subquery()
    if len(scope.workspaces) == 1:
        (only,) = scope.workspaces
        return query.where(tenant == scope.tenant, workspace == only).subquery()
    asked = sa.func.unnest(sa.cast(sorted(scope.workspaces), ARRAY(sa.Uuid)))
    each = asked.table_valued("id").render_derived(name="each")
    first = query.where(tenant == scope.tenant, workspace == each.c.id).correlate(each).lateral("first")
    return sa.select(first).select_from(each.join(first, sa.true())).subquery()
