"""API keys: made by admins, shown once, exchanged for tokens that every service believes, and revoked."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import reasons_pb2
from headrace.metadata.v1 import api_keys_pb2 as pb
from headrace.metadata.v1 import pipelines_pb2, workspaces_pb2
from headrace_chassis.channels import call_metadata
from headrace_chassis.database import driver
from headrace_chassis.identity import Role
from headrace_chassis.ids import uuid7
from headrace_chassis.redaction import redacted
from headrace_chassis.verification import TokenVerifier
from headrace_metadata.domain.api_keys import key_digest, key_id, key_prefix, key_text
from hypothesis import given
from hypothesis import strategies as st

from .support import NOOP, Service, failure


async def make(service: Service, role: str = "EDITOR", *, key: str | None = None, **fields: Any) -> pb.ApiKey:
    caller = service.user("admin", key=key, **fields.pop("claims", {}))
    request = pb.CreateApiKeyRequest(
        name=fields.pop("name", "ci"), role=pb.ApiKeyRole.Value(f"API_KEY_ROLE_{role}"), **fields
    )
    made: pb.ApiKey = await service.api_keys.CreateApiKey(request, metadata=caller)
    return made


async def token(service: Service, key: str) -> str:
    answer = await service.api_keys.ExchangeApiKey(pb.ExchangeApiKeyRequest(key=key))
    return str(answer.token)


async def listed(service: Service, **claims: Any) -> list[pb.ApiKey]:
    answer = await service.api_keys.ListApiKeys(
        pb.ListApiKeysRequest(), metadata=service.user("admin", **claims)
    )
    return list(answer.data)


def at(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


@given(st.uuids(), st.binary(min_size=32, max_size=32))
def test_a_key_says_its_id_and_nothing_altered_passes(identity: uuid.UUID, secret: bytes) -> None:
    text = key_text(identity, secret)
    assert key_id(text) == identity
    assert text.startswith(f"{key_prefix(identity)}_")
    for place in (5, 30, len(text) - 1):
        altered = text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]
        assert key_id(altered) is None


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        key_text(uuid7(), b"short")


async def test_a_key_acts_with_its_role_tenant_and_workspaces(service: Service) -> None:
    inside = await service.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(slug="inside"), metadata=service.user("admin")
    )
    outside = await service.create()
    made = await make(service, workspace_ids=[inside.id])
    caller = call_metadata(await token(service, made.key))

    created = await service.pipelines.CreatePipeline(
        pipelines_pb2.CreatePipelineRequest(name="by key", yaml_definition=NOOP), metadata=caller
    )

    assert (created.workspace_id, created.created_by) == (inside.id, f"apikey:{made.id}")
    hidden = service.pipelines.GetPipeline(pipelines_pb2.GetPipelineRequest(id=outside.id), metadata=caller)
    assert (await failure(hidden)).reason == reasons_pb2.REASON_NOT_FOUND
    beyond = service.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(slug="x"), metadata=caller
    )
    assert (await failure(beyond)).reason == reasons_pb2.REASON_ROLE_REQUIRED


async def test_other_services_verify_the_token_by_themselves(service: Service) -> None:
    made = await make(service, "VIEWER")
    principal = await TokenVerifier(service.authority.auth_settings()).verify(await token(service, made.key))
    assert (principal.subject, principal.kind, principal.role) == (
        f"apikey:{made.id}",
        "api_key",
        Role.VIEWER,
    )
    assert (principal.tenant, principal.workspaces) == (service.tenant, None)


async def test_only_a_hash_is_kept_and_no_list_log_or_event_shows_the_key(service: Service) -> None:
    made = await make(service)
    (row,) = await service.rows("SELECT api_key::text AS text, digest FROM api_key WHERE id = $1", made.id)
    secret = made.key.rpartition("_")[2]
    assert secret not in row["text"]
    assert row["digest"] == key_digest(made.key)
    (shown,) = await listed(service)
    assert (shown.HasField("key"), made.key.startswith(shown.prefix)) == (False, True)
    assert secret not in str(redacted(made))
    assert all(secret.encode() not in event.data for event in await service.events())


async def test_a_repeated_creation_is_the_same_key_and_does_not_show_it_again(service: Service) -> None:
    first, again = await make(service, key="k-1"), await make(service, key="k-1")
    assert (again.id, first.HasField("key"), again.HasField("key")) == (first.id, True, False)


async def test_unknown_altered_expired_and_revoked_keys_fail_in_one_and_the_same_way(
    service: Service,
) -> None:
    revoked, expired = await make(service), await make(service, expires_at=at(soon(60)))
    await service.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=revoked.id), metadata=service.user("admin"))
    async with service.base.db.transaction() as conn:
        await driver(conn).execute(
            "UPDATE api_key SET expires_at = now() - interval '1 ms' WHERE id = $1", expired.id
        )
    another_secret = key_text(uuid.UUID(revoked.id), b"x" * 32)
    for key in (
        "hr_nonsense",
        "x",
        key_text(uuid7(), b"x" * 32),
        another_secret,
        revoked.key,
        expired.key,
    ):
        error = await failure(service.api_keys.ExchangeApiKey(pb.ExchangeApiKeyRequest(key=key)))
        assert (error.reason, error.message, error.metadata) == (
            reasons_pb2.REASON_UNAUTHENTICATED,
            "the API key is not valid",
            {},
        )


async def test_a_token_never_outlives_its_key(service: Service) -> None:
    end = soon(2)
    made = await make(service, expires_at=at(end))
    answer = await service.api_keys.ExchangeApiKey(pb.ExchangeApiKeyRequest(key=made.key))
    assert answer.expires_at.ToDatetime(tzinfo=UTC) <= end


async def test_revoking_takes_a_key_out_of_the_list_and_a_second_time_it_is_not_found(
    service: Service,
) -> None:
    made = await make(service)
    admin = service.user("admin")
    await service.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=made.id), metadata=admin)
    assert await listed(service) == []
    again = service.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=made.id), metadata=admin)
    assert (await failure(again)).reason == reasons_pb2.REASON_NOT_FOUND


async def test_admins_of_some_workspaces_see_and_revoke_only_the_keys_of_these(service: Service) -> None:
    workspaces = [
        await service.workspaces.CreateWorkspace(
            workspaces_pb2.CreateWorkspaceRequest(slug=slug), metadata=service.user("admin")
        )
        for slug in ("mine", "other")
    ]
    mine, other = (workspace.id for workspace in workspaces)
    own = await make(service, claims={"workspaces": [mine]})
    everywhere = await make(service)
    both = await make(service, workspace_ids=[mine, other])
    assert list(own.workspace_ids) == [mine]
    assert [key.id for key in await listed(service, workspaces=[mine])] == [own.id]
    assert {key.id for key in await listed(service)} == {own.id, everywhere.id, both.id}
    for hidden in (everywhere, both):
        call = service.api_keys.RevokeApiKey(
            pb.RevokeApiKeyRequest(id=hidden.id), metadata=service.user("admin", workspaces=[mine])
        )
        assert (await failure(call)).reason == reasons_pb2.REASON_NOT_FOUND
    assert await listed(service, tenant=uuid7()) == []


async def test_a_key_reaches_no_further_than_its_maker(service: Service) -> None:
    made = await make(service, "ADMIN")
    by_key = call_metadata(await token(service, made.key))
    request = pb.CreateApiKeyRequest(name="child", role=pb.API_KEY_ROLE_VIEWER)
    error = await failure(service.api_keys.CreateApiKey(request, metadata=by_key))
    assert error.reason == reasons_pb2.REASON_ROLE_REQUIRED
    other = await service.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(slug="other"), metadata=service.user("admin")
    )
    with_other = make(service, workspace_ids=[other.id], claims={"workspaces": [uuid7()]})
    assert (await failure(with_other)).reason == reasons_pb2.REASON_WORKSPACE_FORBIDDEN
    unknown = make(service, workspace_ids=[str(uuid7())])
    assert (await failure(unknown)).reason == reasons_pb2.REASON_NOT_FOUND


async def test_a_key_that_has_expired_already_is_not_made(service: Service) -> None:
    error = await failure(make(service, name=" ci ", expires_at=at(soon(-1))))
    assert [problem.path for problem in error.problems] == ["name", "expiresAt"]


async def test_the_number_of_valid_keys_is_bounded_however_many_ask_at_once(service: Service) -> None:
    service.parts.api_keys._per_tenant = 3
    made = await asyncio.gather(*(make(service) for _ in range(6)), return_exceptions=True)
    keys = [key for key in made if isinstance(key, pb.ApiKey)]
    assert len(keys) == 3
    error = await failure(make(service))
    assert (error.reason, error.metadata["limit"]) == (reasons_pb2.REASON_QUOTA_EXCEEDED, "3")
    await service.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=keys[0].id), metadata=service.user("admin"))
    await make(service)


async def test_the_last_use_is_noted_coarsely(service: Service) -> None:
    made = await make(service)
    await token(service, made.key)
    (first,) = await listed(service)
    await token(service, made.key)
    (second,) = await listed(service)
    assert first.HasField("last_used_at")
    assert second.last_used_at == first.last_used_at


async def test_lists_go_on_where_they_ended(service: Service) -> None:
    ids = [(await make(service)).id for _ in range(3)]
    seen: list[str] = []
    cursor = ""
    while True:
        request = pb.ListApiKeysRequest(limit=2, cursor=cursor, include_total=True)
        page = await service.api_keys.ListApiKeys(request, metadata=service.user("admin"))
        seen += [key.id for key in page.data]
        assert page.meta.total == 3
        cursor = page.meta.next_cursor
        if not cursor:
            break
    assert seen == ids[::-1]


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
