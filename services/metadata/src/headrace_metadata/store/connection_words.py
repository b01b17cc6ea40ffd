"""Words by which definitions refer to connections, turned into the types of these, within one statement."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from headrace_metadata.store.tables import connection

_ID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
"""An id as PostgreSQL and Python write it; only so can a definition name one."""


def types_by_word(
    word: sa.ColumnElement[str], workspace_id: sa.ColumnElement[Any], *where: sa.ColumnElement[bool]
) -> sa.Select[tuple[dict[str, str] | None]]:
    """The types of a workspace's connections by the words that name them; null where none does.

    A name wins over an id that reads the same: of equal keys the later one stays. For use as a scalar
    subquery, correlated with what `workspace_id` and `where` are of.
    """
    by_name = connection.c.name == word
    # A CASE, so that only what reads like an id is ever cast to one.
    by_id = connection.c.id == sa.case((word.regexp_match(_ID), sa.cast(word, sa.Uuid)))
    types = sa.func.jsonb_object_agg(word, aggregate_order_by(connection.c.type, by_name), type_=JSONB)
    return sa.select(types).where(connection.c.workspace_id == workspace_id, sa.or_(by_name, by_id), *where)
