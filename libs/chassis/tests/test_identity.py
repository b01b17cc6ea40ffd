"""Tokens: what is believed, and everything that is not (RFC 8725)."""

import base64
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from headrace_chassis import keys
from headrace_chassis.api_key_tokens import ApiKeyTokens
from headrace_chassis.bound_tokens import BoundTokens
from headrace_chassis.errors import HeadraceError, Unauthenticated, Unavailable
from headrace_chassis.identity import (
    INTERNAL_AUDIENCE,
    INTERNAL_ISSUER,
    Bound,
    Principal,
    Role,
    ServiceTokens,
)
from headrace_chassis.ids import NIL
from headrace_chassis.key_sets import KeySet
from headrace_chassis.settings import AuthSettings
from headrace_chassis.testing.authority import TENANT, Authority
from headrace_chassis.verification import TokenVerifier
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

WORKSPACE = uuid.UUID(int=42)
OTHER = uuid.UUID(int=41)
WATCH = "/headrace.execution.v1.RunService/WatchRun"


@pytest.fixture
def verifier(authority: Authority) -> TokenVerifier:
    return TokenVerifier(authority.auth_settings())


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {
        "iss": Authority.issuer,
        "aud": Authority.audience,
        "sub": "eve",
        "tenant": str(TENANT),
        "workspaces": "*",
        "roles": ["admin"],
        "iat": now,
        "exp": now + 600,
        **more,
    }
    return {name: value for name, value in given.items() if value is not None}


def with_rsa(authority: Authority, key: rsa.RSAPrivateKey, **jwk: Any) -> TokenVerifier:
    """A verifier whose users' key set is one RSA key."""
    public = {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "rsa", **jwk}
    authority.user_jwks.write_text(json.dumps({"keys": [public]}))
    return TokenVerifier(authority.auth_settings())


async def test_a_users_token_says_who_it_is(authority: Authority, verifier: TokenVerifier) -> None:
    token = authority.user("viewer", subject="ada", workspaces=[WORKSPACE, OTHER, WORKSPACE])
    principal = await verifier.verify(token)
    allowed = frozenset({WORKSPACE, OTHER})
    assert principal == Principal(
        "ada", TENANT, allowed, Role.VIEWER, "user", workspace_order=(WORKSPACE, OTHER)
    )
    assert principal.may_use(WORKSPACE)
    assert not principal.may_use(uuid.UUID(int=1))
    assert token not in repr(principal)


async def test_the_highest_of_several_roles_counts(authority: Authority, verifier: TokenVerifier) -> None:
    principal = await verifier.verify(authority.user(roles=["viewer", "admin", "dancer"]))
    assert principal.role is Role.ADMIN


async def test_a_services_token_says_for_whom(authority: Authority, verifier: TokenVerifier) -> None:
    principal = await verifier.verify(authority.service("execution", tenant=TENANT, on_behalf_of="ada"))
    assert (principal.kind, principal.name, principal.tenant) == ("service", "execution", TENANT)
    assert (principal.on_behalf_of, principal.acts_as) == ("ada", "ada")
    assert principal.may_use(WORKSPACE)


async def test_a_worker_belongs_to_no_tenant(authority: Authority, verifier: TokenVerifier) -> None:
    principal = await verifier.verify(authority.worker("w-7"))
    assert (principal.kind, principal.name, principal.tenant) == ("worker", "w-7", NIL)
    assert not principal.may_use(WORKSPACE)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_other_algorithms_that_are_allowed(
    authority: Authority, rsa_key: rsa.RSAPrivateKey, algorithm: str
) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    public = (
        RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True)
        if algorithm == "RS256"
        else ECAlgorithm.to_jwk(curve.public_key(), as_dict=True)
    )
    authority.user_jwks.write_text(json.dumps({"keys": [{**public, "kid": "k"}]}))
    private = rsa_key if algorithm == "RS256" else curve
    token = jwt.encode(claims(), private, algorithm=algorithm, headers={"kid": "k"})
    assert (await TokenVerifier(authority.auth_settings()).verify(token)).subject == "eve"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"exp": 1_000}, "expired"),
        ({"exp": None}, "lacks the claim exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": True}, "exp"),
        ({"nbf": 32_503_680_000}, "not valid yet"),
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "lacks the claim aud"),
        ({"iss": "https://evil.test"}, "another issuer"),
        ({"iss": None}, "lacks the claim iss"),
        ({"sub": None}, "lacks the claim sub"),
        ({"sub": ""}, "sub is empty"),
        ({"tenant": None}, "tenant is no UUID"),
        ({"tenant": "all"}, "tenant is no UUID"),
        ({"workspaces": None}, "workspaces"),
        ({"workspaces": ["x"]}, "workspaces is no UUID"),
        ({"roles": []}, "none of the roles"),
        ({"roles": ["service"]}, "none of the roles"),
    ],
)
async def test_claims_that_are_refused(
    authority: Authority, verifier: TokenVerifier, changed: dict[str, Any], told: str
) -> None:
    token = _signed_raw(claims(**changed), authority._user_key.decode(), authority.kid)
    with pytest.raises(Unauthenticated, match=told):
        await verifier.verify(token)


def _signed_raw(content: dict[str, Any], key: str, kid: str) -> str:
    """Signs claims that PyJWT would not let through when it encodes them."""
    payload = json.dumps(content).encode()
    return jwt.api_jws.encode(payload, key, algorithm="EdDSA", headers={"kid": kid, "typ": "JWT"})


Forge = Callable[[Authority, rsa.RSAPrivateKey], str]


def none_algorithm(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{encoded(claims())}."


def hs256_with_the_public_key(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    import hashlib
    import hmac

    signed = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{encoded(claims())}"
    tag = hmac.digest(public, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"


def signed_with(key: Any, algorithm: str = "RS256", **header: Any) -> str:
    return jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": "rsa", **header})


def another_key(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return signed_with(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def kid_as_a_path(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return signed_with(key, kid="../../../../dev/null")


def kid_as_sql(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return signed_with(key, kid="' OR 1=1 --")


def kid_as_a_url(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return signed_with(key, kid="https://evil.test/jwks.json")


def no_kid(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return jwt.encode(claims(), key, algorithm="RS256")


def an_own_key_in_the_header(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return signed_with(own, jwk=RSAAlgorithm.to_jwk(own.public_key(), as_dict=True), jku="https://evil.test")


def an_algorithm_that_is_not_allowed(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return signed_with(key, "RS512")


def a_changed_payload(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    header, _, signature = signed_with(key).split(".")
    return f"{header}.{encoded(claims(sub='root'))}.{signature}"


def a_megabyte(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return jwt.encode(claims(junk="x" * 1_000_000), key, algorithm="RS256", headers={"kid": "rsa"})


def deep_json(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    deep = base64.urlsafe_b64encode(b"[" * 10_000).decode()
    return f"{deep[:6000]}.{deep[:6000]}.x"


def no_token_at_all(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return "not.a.token"


def empty(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    return ""


def an_internal_token_by_a_users_key(authority: Authority, key: rsa.RSAPrivateKey) -> str:
    forged = claims(iss=INTERNAL_ISSUER, aud=INTERNAL_AUDIENCE, sub="service:execution")
    return jwt.encode(forged, key, algorithm="RS256", headers={"kid": "rsa"})


@pytest.mark.parametrize(
    "forge",
    [
        none_algorithm,
        hs256_with_the_public_key,
        another_key,
        kid_as_a_path,
        kid_as_sql,
        kid_as_a_url,
        no_kid,
        an_own_key_in_the_header,
        an_algorithm_that_is_not_allowed,
        a_changed_payload,
        a_megabyte,
        deep_json,
        no_token_at_all,
        empty,
        an_internal_token_by_a_users_key,
    ],
)
async def test_forgeries_are_refused(authority: Authority, rsa_key: rsa.RSAPrivateKey, forge: Forge) -> None:
    verifier = with_rsa(authority, rsa_key)
    await verifier.verify(signed_with(rsa_key))  # the honest one is believed
    with pytest.raises(Unauthenticated):
        await verifier.verify(forge(authority, rsa_key))


async def test_a_key_serves_only_the_algorithm_that_it_declares(
    authority: Authority, rsa_key: rsa.RSAPrivateKey
) -> None:
    verifier = with_rsa(authority, rsa_key, alg="PS256")
    with pytest.raises(Unauthenticated):
        await verifier.verify(signed_with(rsa_key))


async def test_short_and_symmetric_keys_are_not_taken(authority: Authority) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    public = {**RSAAlgorithm.to_jwk(short.public_key(), as_dict=True), "kid": "short"}
    symmetric = {"kty": "oct", "kid": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}
    authority.user_jwks.write_text(json.dumps({"keys": [public, symmetric]}))
    keyset = KeySet(str(authority.user_jwks))
    await keyset.load()
    for kid in ("short", "oct"):
        with pytest.raises(Unauthenticated):
            await keyset.find(kid, "RS256")


class TestInternalTokens:
    """What services and workers sign for themselves."""

    def sign(self, authority: Authority, kid: str, **more: Any) -> str:
        key = authority.service_key_file("metadata").read_text()
        given = {"iss": INTERNAL_ISSUER, "aud": INTERNAL_AUDIENCE, "sub": "service:metadata", **more}
        content = claims(**given)
        return jwt.encode(content, key, algorithm="EdDSA", headers={"kid": kid})

    async def test_nobody_signs_for_another(self, authority: Authority, verifier: TokenVerifier) -> None:
        authority.worker_key_file("w")
        for changed in ({"sub": "service:execution"}, {"sub": "worker:w"}, {"sub": "user"}):
            with pytest.raises(Unauthenticated):
                await verifier.verify(self.sign(authority, "service:metadata", **changed))

    async def test_only_the_owner_of_api_keys_signs_for_them(
        self, authority: Authority, verifier: TokenVerifier
    ) -> None:
        key = uuid.UUID(int=5)
        honest, _ = ApiKeyTokens(authority.service_key_file("metadata"), 5.0).token(
            key, TENANT, Role.EDITOR, [WORKSPACE]
        )
        principal = await verifier.verify(honest)
        assert (principal.subject, principal.kind, principal.role) == (
            f"apikey:{key}",
            "api_key",
            Role.EDITOR,
        )
        assert (principal.tenant, principal.workspaces) == (TENANT, frozenset({WORKSPACE}))
        assert not principal.has(Role.SERVICE)
        authority.service_key_file("execution")
        claimed = claims(
            iss=INTERNAL_ISSUER, aud=INTERNAL_AUDIENCE, sub=f"apikey:{key}", exp=int(time.time()) + 5
        )
        forged = jwt.encode(
            claimed,
            authority.service_key_file("execution").read_text(),
            algorithm="EdDSA",
            headers={"kid": "service:execution"},
        )
        for token in (forged, authority.user(subject=f"apikey:{key}")):
            with pytest.raises(Unauthenticated):
                await verifier.verify(token)

    async def test_the_token_of_an_api_key_lives_a_minute_at_the_most(
        self, authority: Authority, verifier: TokenVerifier
    ) -> None:
        tokens = ApiKeyTokens(authority.service_key_file("metadata"), 90.0)
        token, _ = tokens.token(uuid.UUID(int=5), TENANT, Role.VIEWER, None)
        with pytest.raises(Unauthenticated, match="lives longer"):
            await verifier.verify(token)
        short, expires = tokens.token(uuid.UUID(int=5), TENANT, Role.VIEWER, None, until=time.time() + 5)
        assert (await verifier.verify(short)).expires_at == expires

    async def test_a_long_life_is_refused(self, authority: Authority, verifier: TokenVerifier) -> None:
        with pytest.raises(Unauthenticated, match="lives longer"):
            await verifier.verify(self.sign(authority, "service:metadata", exp=int(time.time()) + 90_000))

    async def test_a_users_key_set_says_nothing_about_services(self, authority: Authority) -> None:
        pem = keys.generate()
        authority.user_jwks.write_text(keys.jwks({"service:execution": pem}))
        forged = claims(iss=INTERNAL_ISSUER, aud=INTERNAL_AUDIENCE, sub="service:execution")
        token = jwt.encode(forged, pem.decode(), algorithm="EdDSA", headers={"kid": "service:execution"})
        with pytest.raises(Unauthenticated):
            await TokenVerifier(authority.auth_settings()).verify(token)

    async def test_a_service_key_says_nothing_about_users(
        self, authority: Authority, verifier: TokenVerifier
    ) -> None:
        key = authority.service_key_file("metadata").read_text()
        token = jwt.encode(claims(), key, algorithm="EdDSA", headers={"kid": "service:metadata"})
        with pytest.raises(Unauthenticated):
            await verifier.verify(token)

    def test_a_token_is_kept_until_half_its_life_and_then_made_anew(self, authority: Authority) -> None:
        now = [time.time()]
        tokens = ServiceTokens("metadata", authority.service_key_file("metadata"), clock=lambda: now[0])
        first = tokens.token(TENANT, "ada")
        assert tokens.token(TENANT, "ada") == first
        assert tokens.token(TENANT, "bob") != first
        now[0] += 200
        assert tokens.token(TENANT, "ada") != first

    def test_a_private_key_of_another_kind_is_told(self, tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
        path = tmp_path / "key.pem"
        pem = rsa_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(pem)
        with pytest.raises(ValueError, match="no Ed25519 one"):
            ServiceTokens("metadata", path)


class TestRemembering:
    """Verified tokens are remembered, within bounds and until they expire."""

    async def test_until_it_expires(self, authority: Authority) -> None:
        now = [time.time()]
        verifier = TokenVerifier(authority.auth_settings(), clock=lambda: now[0])
        token = authority.user(lifetime=60)
        principal = await verifier.verify(token)
        assert verifier.remembered(token) is principal
        now[0] += 120
        assert verifier.remembered(token) is None
        with pytest.raises(Unauthenticated, match="expired"):
            await verifier.verify(token)

    async def test_only_so_many(self, authority: Authority) -> None:
        verifier = TokenVerifier(authority.auth_settings(), capacity=2)
        tokens = [authority.user(subject=name) for name in "abc"]
        for token in tokens:
            await verifier.verify(token)
        assert [verifier.remembered(token) is not None for token in tokens] == [False, True, True]


class TestRotation:
    """Key sets are read again when an unknown key appears, and not more often than is good."""

    async def test_a_new_key_is_believed_at_once(self, authority: Authority) -> None:
        verifier = TokenVerifier(authority.auth_settings())
        await verifier.verify(authority.user(subject="before"))
        authority.rotate_users("users-2")
        assert (await verifier.verify(authority.user(subject="after"))).subject == "after"

    async def test_a_removed_key_is_believed_for_minutes_only(self, authority: Authority) -> None:
        now, ticks = [time.time()], [0.0]
        verifier = TokenVerifier(authority.auth_settings(), clock=lambda: now[0], monotonic=lambda: ticks[0])
        old = authority.user(lifetime=9_000)
        await verifier.verify(old)
        authority.rotate_users("users-2", keep_old=False)
        now[0] += 700
        ticks[0] += 700
        with pytest.raises(Unauthenticated):
            await verifier.verify(old)

    async def test_a_flood_of_unknown_keys_is_no_flood_of_reads(self, authority: Authority) -> None:
        now = [100.0]
        keyset = KeySet(str(authority.user_jwks), monotonic=lambda: now[0])
        reads = 0
        read = keyset._read

        async def counted() -> bytes:
            nonlocal reads
            reads += 1
            return await read()

        keyset._read = counted  # type: ignore[method-assign]
        for second in range(300):
            now[0] = 100.0 + second
            for number in range(3):
                with pytest.raises(Unauthenticated):
                    await keyset.find(f"forged-{second}-{number}", "EdDSA")
        assert reads <= 12  # 1 s, 2 s, 4 s … 60 s apart

    async def test_a_broken_key_set_keeps_the_known_keys(self, authority: Authority) -> None:
        verifier = TokenVerifier(authority.auth_settings())
        await verifier.start()
        authority.user_jwks.write_text("<html>502 Bad Gateway</html>")
        assert await verifier.verify(authority.user())
        with pytest.raises(Unauthenticated):
            await verifier.verify(jwt.encode(claims(), keys.generate().decode(), "EdDSA", {"kid": "new"}))

    async def test_a_url_that_is_away_is_no_refusal(self, authority: Authority) -> None:
        values = {**authority.auth_values(), "jwt_jwks": "http://127.0.0.1:1/jwks.json"}
        verifier = TokenVerifier(AuthSettings(**values))
        await verifier.start()
        with pytest.raises(Unavailable) as away:
            await verifier.verify(authority.user())
        assert away.value.retry_after is not None


class TestSharedSecret:
    """HS256 works only where the operator configured it."""

    SECRET = "a shared secret that has more than 32 bytes"

    def verifier(self, authority: Authority, tmp_path: Path, secret: str = SECRET) -> TokenVerifier:
        path = tmp_path / "secret"
        path.write_text(secret)
        return TokenVerifier(AuthSettings(**authority.auth_values(), jwt_hs256_secret_file=path))

    async def test_configured(self, authority: Authority, tmp_path: Path) -> None:
        token = jwt.encode(claims(), self.SECRET, algorithm="HS256")
        assert (await self.verifier(authority, tmp_path).verify(token)).subject == "eve"

    async def test_not_configured(self, authority: Authority, verifier: TokenVerifier) -> None:
        with pytest.raises(Unauthenticated, match="not allowed"):
            await verifier.verify(jwt.encode(claims(), self.SECRET, algorithm="HS256"))

    def test_a_short_secret_fails_the_start(self, authority: Authority, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JWT_HS256_SECRET_FILE"):
            self.verifier(authority, tmp_path, "short")


ROLES = [Role.VIEWER, Role.EDITOR, Role.ADMIN, Role.SERVICE, Role.WORKER]


@pytest.mark.parametrize(
    ("kind", "role", "may"),
    [
        ("user", Role.VIEWER, {Role.VIEWER}),
        ("user", Role.EDITOR, {Role.VIEWER, Role.EDITOR}),
        ("user", Role.ADMIN, {Role.VIEWER, Role.EDITOR, Role.ADMIN}),
        ("service", Role.SERVICE, {Role.VIEWER, Role.EDITOR, Role.ADMIN, Role.SERVICE}),
        ("worker", Role.WORKER, {Role.WORKER}),
    ],
)
def test_who_may_call_what(kind: Any, role: Role, may: set[Role]) -> None:
    principal = Principal("x", TENANT, None, role, kind)
    assert {needed for needed in ROLES if principal.has(needed)} == may


def test_errors_say_nothing_of_the_token(authority: Authority) -> None:
    error: HeadraceError = Unauthenticated("the token has expired")
    assert error.code == "UNAUTHENTICATED"


class TestBoundTokens:
    async def test_one_is_good_for_its_rpc_and_for_no_role(
        self, authority: Authority, verifier: TokenVerifier
    ) -> None:
        token = bound(authority, "execution", WATCH)

        principal = await verifier.verify(token)

        assert (principal.subject, principal.tenant, principal.kind) == ("ada", TENANT, "user")
        assert principal.workspaces == frozenset({WORKSPACE})
        assert principal.bound_to == Bound(WATCH, "1")
        assert principal.may_call(WATCH, Role.VIEWER)
        assert not principal.may_call(WATCH, Role.EDITOR)
        assert not principal.may_call(f"{WATCH}er", Role.VIEWER)
        assert not any(principal.has(role) for role in Role)

    async def test_a_service_binds_tokens_to_its_own_rpcs_only(
        self, authority: Authority, verifier: TokenVerifier
    ) -> None:
        with pytest.raises(Unauthenticated, match="does not serve"):
            await verifier.verify(bound(authority, "metadata", WATCH))

    @pytest.mark.parametrize("given", ["", {}, {"rpc": WATCH}, {"rpc": WATCH, "object": 1}, [WATCH, "1"]])
    async def test_one_that_is_bound_to_nothing_is_refused(
        self, authority: Authority, verifier: TokenVerifier, given: Any
    ) -> None:
        key = authority.service_key_file("execution").read_text()
        content = claims(iss=INTERNAL_ISSUER, aud=INTERNAL_AUDIENCE, bound=given)
        token = jwt.encode(content, key, algorithm="EdDSA", headers={"kid": "service:execution"})

        with pytest.raises(Unauthenticated, match="bound to nothing"):
            await verifier.verify(token)

    async def test_a_users_issuer_binds_nothing(self, authority: Authority, verifier: TokenVerifier) -> None:
        principal = await verifier.verify(authority.user("viewer", bound={"rpc": WATCH, "object": "1"}))

        assert principal.bound_to is None


def bound(authority: Authority, service: str, rpc: str) -> str:
    tokens = BoundTokens(service, authority.service_key_file(service))
    token, _ = tokens.token(
        Bound(rpc, "1"),
        subject="ada",
        tenant=TENANT,
        workspaces={WORKSPACE},
        role=Role.VIEWER,
        until=time.time() + 600,
    )
    return token
