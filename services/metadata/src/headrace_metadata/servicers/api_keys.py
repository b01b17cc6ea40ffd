"""ApiKeyService."""

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from headrace.metadata.v1 import api_keys_pb2 as pb
from headrace.metadata.v1 import api_keys_pb2_grpc
from headrace_chassis.database import Database
from headrace_chassis.identity import current_principal
from headrace_chassis.messages import timestamp
from headrace_chassis.pages import Pages
from headrace_chassis.paging import Cursors
from headrace_chassis.writes import Writes
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace_metadata.application.api_keys import ApiKeys
from headrace_metadata.application.workspaces import scope_of
from headrace_metadata.convert import api_keys as convert
from headrace_metadata.domain.api_keys import ApiKey
from headrace_metadata.servicers import Context
from headrace_metadata.store import api_keys as store


class ApiKeyServicer(api_keys_pb2_grpc.ApiKeyServiceServicer):
    """Serves API keys."""

    def __init__(self, db: Database, writes: Writes, keys: ApiKeys, cursors: Cursors) -> None:
        self._db = db
        self._writes = writes
        self._keys = keys
        self._pages = Pages[ApiKey](
            cursors, "api keys", (datetime, UUID), lambda key: (key.created_at, key.id)
        )

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        limit, after = self._pages.begin(request)
        scope = scope_of(current_principal())
        async with self._db.read() as conn:
            found = await store.page(conn, scope, after, limit + 1)  # type: ignore[arg-type]
            total = await store.count(conn, scope) if request.include_total else None
        items, meta = self._pages.end(found, limit, total)
        return pb.ListApiKeysResponse(data=map(convert.key_message, items), meta=meta)

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.ApiKey:
        principal = current_principal()
        new = convert.new_key(request)

        async def apply(conn: AsyncConnection) -> pb.ApiKey:
            key, text = await self._keys.create(conn, principal, new)
            return convert.key_message(key, text)

        return await self._writes.keyed(pb.ApiKey, apply, stored=convert.without_key)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> Empty:
        principal = current_principal()
        await self._writes.plain(lambda conn: self._keys.revoke(conn, principal, UUID(request.id)))
        return Empty()

    async def ExchangeApiKey(
        self, request: pb.ExchangeApiKeyRequest, context: Context
    ) -> pb.ExchangeApiKeyResponse:
        token, expires = await self._keys.exchange(request.key)
        return pb.ExchangeApiKeyResponse(
            token=token, expires_at=timestamp(datetime.fromtimestamp(expires, tz=UTC))
        )
