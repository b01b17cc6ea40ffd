"""The keyring: what it takes, and that it shows nothing."""

import base64
import json

import pytest
from headrace.metadata.v1 import connections_pb2
from headrace_chassis.ids import uuid7
from headrace_chassis.settings import SettingsError
from headrace_metadata.config import MetadataSettings
from headrace_metadata.keyring import Keyring, KeyringError, SealBroken, Sealed
from headrace_metadata.wiring import Parts
from pydantic import SecretStr

from .support import Service, keyring_json

KEY = base64.b64encode(b"k" * 32).decode()


def test_what_is_sealed_opens_for_its_own_connection_alone() -> None:
    ring = Keyring.parse(keyring_json("k1", "k1"))
    tenant, connection = uuid7(), uuid7()
    sealed = ring.seal("zażółć", tenant, connection)
    assert ring.open(sealed, tenant, connection) == "zażółć"
    for other in ((uuid7(), connection), (tenant, uuid7())):
        with pytest.raises(SealBroken):
            ring.open(sealed, *other)
    altered = Sealed(sealed.key_id, sealed.nonce, bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:])
    with pytest.raises(SealBroken):
        ring.open(altered, tenant, connection)


def test_the_same_secret_never_seals_alike() -> None:
    ring = Keyring.parse(keyring_json("k1", "k1"))
    tenant, connection = uuid7(), uuid7()
    seals = {ring.seal("x", tenant, connection).nonce for _ in range(100)}
    assert len(seals) == 100


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({"active": "k1"}),
        json.dumps({"active": "k2", "keys": {"k1": KEY}}),
        json.dumps({"active": "k1", "keys": {"k1": "not base64!"}}),
        json.dumps({"active": "k1", "keys": {"k1": base64.b64encode(b"short-canary").decode()}}),
        json.dumps({"active": "k 1", "keys": {"k 1": KEY}}),
    ],
)
def test_a_malformed_keyring_is_refused_without_showing_keys(text: str) -> None:
    with pytest.raises(KeyringError) as raised:
        Keyring.parse(text)
    shown = repr(raised.value) + repr(raised.value.__cause__)
    assert [part for part in (KEY, "short-canary", "not base64!") if part in shown] == []


def test_neither_keyring_nor_settings_show_keys(settings: MetadataSettings) -> None:
    shown = repr(settings) + str(settings) + repr(settings.keyring())
    assert base64.b64encode(b"k1".ljust(32, b".")).decode() not in shown


async def test_a_key_that_stored_secrets_need_must_be_there_at_the_start(
    service: Service, settings: MetadataSettings
) -> None:
    request = connections_pb2.CreateConnectionRequest(
        name="w",
        type=connections_pb2.CONNECTION_TYPE_POSTGRESQL,
        host="h",
        database="d",
        username="u",
        secret="s",
    )
    await service.connections.CreateConnection(request, metadata=service.user("admin"))
    without = settings.model_copy(update={"encryption_keys": SecretStr(keyring_json("k9", "k9"))})
    parts = Parts(without, service.base, service.channel, service.channel)
    with pytest.raises(SettingsError, match="k1"):
        await parts.demand_all_keys()
