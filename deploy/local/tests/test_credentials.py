"""Secrets are made once, private, and good for what they are for."""

import json
import stat
import uuid
from datetime import timedelta

import jwt
import pytest
from headrace_chassis.identity import Role
from headrace_chassis.settings import AuthSettings
from headrace_chassis.verification import TokenVerifier
from headrace_local.credentials import Credentials, ensure_credentials
from headrace_local.home import Home
from headrace_local.tokens import AUDIENCE, ISSUER, ROLES, TENANT, mint, renew_ready_made


def verifier(credentials: Credentials) -> TokenVerifier:
    """What a service of the stack believes."""
    return TokenVerifier(
        AuthSettings.model_validate(
            {
                "jwt_jwks": str(credentials.users_jwks),
                "jwt_issuer": ISSUER,
                "jwt_audience": AUDIENCE,
                "internal_jwks": credentials.internal_jwks,
            }
        )
    )


def test_secrets_are_made_once_and_private(home: Home) -> None:
    first = ensure_credentials(home)
    before = {path.name: path.read_bytes() for path in home.secrets.iterdir()}
    assert ensure_credentials(home) == first
    assert {path.name: path.read_bytes() for path in home.secrets.iterdir()} == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.secrets.iterdir()} == {0o600}


def test_passwords_do_not_show(home: Home) -> None:
    credentials = ensure_credentials(home)
    shown = repr(credentials)
    for password in (*credentials.postgres_passwords.values(), credentials.nats_password):
        assert len(password) == 48
        assert password not in shown


@pytest.mark.parametrize("role", ROLES)
async def test_ready_made_tokens_are_believed(home: Home, role: str) -> None:
    credentials = ensure_credentials(home)
    renew_ready_made(home, credentials)
    principal = await verifier(credentials).verify(home.token_file(role).read_text())
    assert (principal.role, principal.tenant) == (Role[role.upper()], TENANT)
    assert principal.workspaces is None
    assert stat.S_IMODE(home.token_file(role).stat().st_mode) == 0o600


async def test_a_token_is_bound_to_tenant_and_workspaces(home: Home) -> None:
    credentials = ensure_credentials(home)
    tenant, workspace = uuid.uuid4(), uuid.uuid4()
    token = mint(
        credentials,
        role="viewer",
        tenant=tenant,
        workspaces=[str(workspace)],
        subject="ada",
        lifetime=timedelta(minutes=1),
    )
    principal = await verifier(credentials).verify(token)
    assert (principal.subject, principal.tenant) == ("ada", tenant)
    assert principal.workspaces == frozenset({workspace})


def test_tokens_are_renewed(home: Home) -> None:
    credentials = ensure_credentials(home)
    renew_ready_made(home, credentials)
    first = home.token_file("admin").read_text()
    renew_ready_made(home, credentials)
    second = home.token_file("admin").read_text()
    assert second != first
    claims = jwt.decode(second, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 30 * 24 * 3600


def test_public_keys_hold_nothing_private(home: Home) -> None:
    credentials = ensure_credentials(home)
    for path in (credentials.users_jwks, credentials.internal_jwks):
        for key in json.loads(path.read_text())["keys"]:
            assert "d" not in key
