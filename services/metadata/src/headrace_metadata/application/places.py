"""Where connections lead, and how the pipelines that use them are called: what lineage is told in."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from headrace_definition.datasets import ConnectionPlace
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.domain.connections import Connection
from headrace_metadata.store import connections, pipeline_names


@dataclass(frozen=True)
class DescribedPipeline:
    """How a pipeline is called, and where connections of its workspace lead, by the words that name them."""

    id: UUID
    slug: str
    name: str
    workspace_slug: str
    places: Mapping[str, ConnectionPlace]


def places(words: Iterable[str], found: Iterable[Connection]) -> dict[str, ConnectionPlace]:
    """Where connections lead, by the words that name them; a name wins over an id that reads the same."""
    by_word: dict[str, ConnectionPlace] = {}
    known = [(each, _place(each)) for each in found]
    by_word |= {str(each.id): place for each, place in known}
    by_word |= {each.name: place for each, place in known}
    return {word: by_word[word] for word in words if word in by_word}


async def describe(
    conn: AsyncConnection, tenant: UUID, wanted: Mapping[UUID, Iterable[str]]
) -> list[DescribedPipeline]:
    """The pipelines of a tenant, each with those of its connections that are asked for; what does not exist
    is left out. A pipeline that is being deleted is there for as long as its row is."""
    names = await pipeline_names.among(conn, tenant, wanted)
    words: dict[UUID, set[str]] = defaultdict(set)
    for each in names:
        words[each.workspace_id].update(wanted[each.id])
    found = {
        workspace: await connections.by_words(conn, tenant, workspace, asked) if asked else ()
        for workspace, asked in words.items()
    }
    return [
        DescribedPipeline(
            id=each.id,
            slug=each.slug,
            name=each.name,
            workspace_slug=each.workspace_slug,
            places=places(wanted[each.id], found[each.workspace_id]),
        )
        for each in names
    ]


def _place(connection: Connection) -> ConnectionPlace:
    endpoint = connection.endpoint
    search_path = endpoint.options.get("search_path", "").split(",")[0].strip().strip('"')
    return ConnectionPlace(
        id=str(connection.id),
        name=connection.name,
        type=endpoint.type,
        host=endpoint.host,
        port=endpoint.port,
        database=endpoint.database,
        path=endpoint.path,
        default_schema=search_path if search_path and not search_path.startswith("$") else None,
    )
