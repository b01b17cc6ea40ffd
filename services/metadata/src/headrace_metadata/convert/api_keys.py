"""API keys."""

from datetime import UTC
from uuid import UUID

from headrace.metadata.v1 import api_keys_pb2
from headrace_chassis.messages import timestamp

from headrace_metadata.application.api_keys import NewKey
from headrace_metadata.domain.api_keys import ApiKey, KeyRole, key_prefix
from headrace_metadata.domain.names import normalise_name

_ROLE = "API_KEY_ROLE_"


def new_key(request: api_keys_pb2.CreateApiKeyRequest) -> NewKey:
    """A key to make."""
    has_end = request.HasField("expires_at")
    return NewKey(
        name=normalise_name(request.name),
        role=KeyRole(api_keys_pb2.ApiKeyRole.Name(request.role).removeprefix(_ROLE)),
        workspaces=tuple(dict.fromkeys(UUID(identity) for identity in request.workspace_ids)),
        expires_at=request.expires_at.ToDatetime(tzinfo=UTC) if has_end else None,
    )


def key_message(key: ApiKey, text: str | None = None) -> api_keys_pb2.ApiKey:
    """A key; `text` is the key itself, where it is shown."""
    return api_keys_pb2.ApiKey(
        id=str(key.id),
        name=key.name,
        prefix=key_prefix(key.id),
        role=api_keys_pb2.ApiKeyRole.Value(_ROLE + key.role),
        workspace_ids=[str(workspace) for workspace in key.workspaces or ()],
        expires_at=timestamp(key.expires_at),
        last_used_at=timestamp(key.last_used_at),
        created_at=timestamp(key.created_at),
        created_by=key.created_by,
        key=text,
    )


def without_key(message: api_keys_pb2.ApiKey) -> api_keys_pb2.ApiKey:
    """The same answer without what is shown once."""
    kept = api_keys_pb2.ApiKey()
    kept.CopyFrom(message)
    kept.ClearField("key")
    return kept
