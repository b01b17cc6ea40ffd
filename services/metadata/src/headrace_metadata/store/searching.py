"""Reading for lists that may be searched by a part of a name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from headrace_chassis.database import Database
from sqlalchemy.ext.asyncio import AsyncConnection


@asynccontextmanager
async def reading(db: Database, search: str) -> AsyncIterator[AsyncConnection]:
    """A connection for reading; with a search, one whose plans are made for what is searched.

    Whether the index of names or that of ages finds a page sooner depends on how many names hold the part,
    which the plan that PostgreSQL would keep for all searches cannot know.
    """
    if not search:
        async with db.read() as conn:
            yield conn
        return
    async with db.transaction(readonly=True) as conn:
        await conn.execute(sa.text("SET LOCAL plan_cache_mode = force_custom_plan"))
        yield conn


def like_pattern(part: str) -> str:
    """A LIKE pattern, with backslash as escape, for texts that contain a part."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
