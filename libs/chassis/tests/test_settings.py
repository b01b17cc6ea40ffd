"""Settings: precise about what is wrong, and silent about values."""

from pathlib import Path

import pytest
from headrace_chassis.settings import ServiceSettings, Settings, SettingsError, load
from headrace_chassis.testing.authority import Authority

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    for name, value in {
        "JWT_JWKS": str(authority.user_jwks),
        "JWT_ISSUER": "https://issuer.test",
        "JWT_AUDIENCE": "headrace",
        "INTERNAL_JWKS": str(authority.internal_jwks),
        "DATABASE_URL": f"postgresql://u:{SECRET}@h/d",
        "NATS_URL": f"nats://u:{SECRET}@h:4222",
        "INTERNAL_KEY_FILE": str(authority.service_key_file("metadata")),
        "CURSOR_KEY_FILE": str(authority.cursor_key_file),
    }.items():
        monkeypatch.setenv(name, value)


def test_what_is_good_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_ALGORITHMS", "RS256, EdDSA")
    monkeypatch.setenv("GRPC_LISTEN", "127.0.0.1:7")
    settings = load(ServiceSettings)
    assert settings.jwt_algorithms == ("RS256", "EdDSA")
    assert (settings.grpc_listen, settings.log_level, settings.metrics_listen) == (
        "127.0.0.1:7",
        "info",
        None,
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("DATABASE_URL", None, "DATABASE_URL: Field required"),
        ("DATABASE_URL", f"mysql://u:{SECRET}@h/d", "DATABASE_URL: "),
        ("DATABASE_POOL_SIZE", "many", "DATABASE_POOL_SIZE: "),
        ("DATABASE_POOL_SIZE", "0", "DATABASE_POOL_SIZE: "),
        ("INTERNAL_KEY_FILE", "/does/not/exist", "INTERNAL_KEY_FILE: "),
        ("CURSOR_KEY_FILE", "/does/not/exist", "CURSOR_KEY_FILE: "),
        ("JWT_JWKS", "/does/not/exist", "JWT_JWKS: "),
        ("JWT_JWKS", None, "JWT_JWKS "),
        ("JWT_ALGORITHMS", "none", "JWT_ALGORITHMS: "),
        ("JWT_ALGORITHMS", "HS256", "JWT_ALGORITHMS: "),
        ("LOG_LEVEL", "loud", "LOG_LEVEL: "),
        ("HEADRACE_GRPC_LISTEN", "x", "HEADRACE_GRPC_LISTEN: there is no such setting"),
    ],
)
def test_what_is_wrong_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, told: str
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load(ServiceSettings)
    assert told in str(refused.value)
    assert SECRET not in str(refused.value)


def test_variables_of_other_processes_are_tolerated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setenv("HEADRACE_SECRET_WAREHOUSE", SECRET)
    assert load(ServiceSettings)


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(load(ServiceSettings))


def test_every_setting_is_documented() -> None:
    def kinds(kind: type[Settings]) -> list[type[Settings]]:
        return [kind, *(one for below in kind.__subclasses__() for one in kinds(below))]

    for kind in kinds(Settings):
        if kind.__module__.startswith("headrace_chassis"):
            for name, field in kind.model_fields.items():
                assert field.description, f"{kind.__name__}.{name}"
