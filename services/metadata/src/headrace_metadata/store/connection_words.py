"""Words by which definitions refer to connections, turned into the types of these, within one statement."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from headrace_metadata.domain.connections import NamedConnection
from headrace_metadata.store.tables import connection

_ID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
"""An id as PostgreSQL and Python write it; only so can a definition name one."""


def named_connections(*found: Mapping[str, Any] | None) -> dict[str, NamedConnection]:
    """What `types_by_word` found, one after the other, in Python's words."""
    return {word: _named(value) for each in found if each for word, value in each.items()}


def _named(value: Any) -> NamedConnection:
    if isinstance(value, str):
        return NamedConnection(value)
    kind, identity, limit = value
    return NamedConnection(kind, UUID(identity), limit)


def types_by_word(
    word: sa.ColumnElement[str], workspace_id: sa.ColumnElement[Any], *where: sa.ColumnElement[bool]
) -> sa.Select[tuple[dict[str, Any] | None]]:
    """The types of a workspace's connections by the words that name them; null where none does. Of one that
    has a limit it is the type, the id and the limit.

    A name wins over an id that reads the same: of equal keys the later one stays. For use as a scalar
    subquery, correlated with what `workspace_id` and `where` are of.
    """
    by_name = connection.c.name == word
    # A CASE, so that only what reads like an id is ever cast to one.
    by_id = connection.c.id == sa.case((word.regexp_match(_ID), sa.cast(word, sa.Uuid)))
    limit = connection.c.max_concurrent_stages
    limited = sa.func.jsonb_build_array(connection.c.type, connection.c.id, limit, type_=JSONB)
    shown = sa.case((limit.is_(None), sa.func.to_jsonb(connection.c.type, type_=JSONB)), else_=limited)
    types = sa.func.jsonb_object_agg(word, aggregate_order_by(shown, by_name), type_=JSONB)
    return sa.select(types).where(connection.c.workspace_id == workspace_id, sa.or_(by_name, by_id), *where)
