"""Small parts on their own: lease, frames, redaction, secret references, settings."""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from headrace_chassis.settings import SettingsError, load
from headrace_worker.config import WorkerSettings
from headrace_worker.engine.cursor_values import pack_cursors, unpack_cursors
from headrace_worker.engine.cursors import share_readings
from headrace_worker.engine.redaction import Redactor
from headrace_worker.lease import Lease
from headrace_worker.processes.frames import Frame, FrameBuffer, FrameError, pack
from headrace_worker.secret_references import SecretReferences, SecretUnavailable
from headrace_worker.temp_folder import TempFolder
from hypothesis import given
from hypothesis import strategies as st


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    now = 100.0
    lease = Lease(lambda: now)
    assert not lease.valid
    lease.granted(10.0)
    lease.renewed(asked_at=95.0)
    now = 104.9
    assert lease.valid
    now = 105.0
    assert not lease.valid
    lease.renewed(asked_at=104.0)
    lease.renewed(asked_at=103.0)
    now = 113.9
    assert lease.valid
    now = 114.0
    assert not lease.valid


@given(st.lists(st.tuples(st.sampled_from(Frame), st.binary(max_size=200))), st.integers(1, 50))
def test_frames_survive_any_cutting(frames: list[tuple[Frame, bytes]], size: int) -> None:
    data = b"".join(pack(kind, body) for kind, body in frames)
    buffer = FrameBuffer()
    found = []
    for start in range(0, len(data), size):
        found += buffer.feed(data[start : start + size])
    assert found == frames


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError):
        FrameBuffer().feed(b"\xff\xff\xff\xff\x01")
    with pytest.raises(FrameError):
        FrameBuffer().feed(b"\x00\x00\x00\x00\xfe")


SECRETS = st.text(min_size=4, max_size=40).filter(lambda text: text.strip("* ") and "\ud800" not in text)


@given(SECRETS)
def test_a_secret_is_taken_out_in_every_form(secret: str) -> None:
    forms = [
        secret,
        quote(secret, safe="", errors="surrogatepass"),
        base64.b64encode(secret.encode("utf-8", "surrogatepass")).decode(),
        secret.replace("'", "''"),
    ]
    for form in forms:
        assert Redactor([secret]).text(f"<{form}>") == "<***>"


def test_a_message_keeps_everything_else() -> None:
    assert Redactor(["pa ss/word"]).text("host pa%20ss%2Fword refused") == "host *** refused"
    assert Redactor(["abc"]).text("abcdef") == "abcdef"
    assert Redactor().text("no //x:y@ but http://h:1/?a=b@c") == "no //x:y@ but http://h:1/?a=b@c"


def test_a_password_in_an_url_is_taken_out_wherever_it_comes_from() -> None:
    quoted = "row 2: 'postgres://ada:lovelace@db/x, redis://:word@cache' is no date"
    assert Redactor().text(quoted) == "row 2: 'postgres://ada:***@db/x, redis://:***@cache' is no date"


@pytest.fixture
def references(tmp_path: Path) -> SecretReferences:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "password").write_text("from a file\n")
    (tmp_path / "outside").write_text("canary")
    (folder / "link").symlink_to(tmp_path / "outside")
    environment = {"HEADRACE_SECRET_A": "from a variable", "HOME": "canary"}
    return SecretReferences(environment, prefix="HEADRACE_SECRET_", roots=[folder])


def test_references_are_resolved(references: SecretReferences, tmp_path: Path) -> None:
    assert references.resolve("env://HEADRACE_SECRET_A") == "from a variable"
    assert references.resolve(f"file://{tmp_path}/secrets/password") == "from a file"


@pytest.mark.parametrize(
    "reference",
    [
        "env://HOME",
        "env://HEADRACE_SECRET_B",
        "file://{tmp}/outside",
        "file://{tmp}/secrets/link",
        "file://{tmp}/secrets/../outside",
        "file://{tmp}/secrets/nothing",
        "file://host{tmp}/secrets/password",
        "vault://x",
        "plain text",
    ],
)
def test_references_beyond_what_is_allowed_are_refused(
    references: SecretReferences, tmp_path: Path, reference: str
) -> None:
    with pytest.raises(SecretUnavailable) as refused:
        references.resolve(reference.format(tmp=tmp_path))
    assert "canary" not in str(refused.value)


def test_cursors_travel_as_one_value() -> None:
    assert unpack_cursors(pack_cursors({"a": b"\x00\xff", "b": b"{}"})) == {"a": b"\x00\xff", "b": b"{}"}
    assert pack_cursors({}) is None
    assert unpack_cursors(None) == {}


def test_sinks_share_a_reading_where_they_go_on_from_the_same_place() -> None:
    groups = share_readings({"a": {"s": b"1"}, "b": {}, "c": {"s": b"1"}})
    assert groups == [({"s": b"1"}, ["a", "c"]), ({}, ["b"])]


def test_the_folders_of_dead_workers_are_swept(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / ".lock").touch()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with TempFolder(tmp_path, "alive") as alive:
        with TempFolder(tmp_path, "another"):
            assert alive.path.is_dir()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "foreign"]
    assert not alive.path.exists()


VALUES = {"EXECUTION_TARGET": "127.0.0.1:9002", "WORKER_NAME": "w"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_MEMORY", "lots"),
        ("WORKER_SLOTS", "0"),
        ("WORKER_DENY_ENDPOINTS", "localhost"),
        ("WORKER_ALLOW_ADDRESSES", "10.0.0.0/99"),
        ("WORKER_NAME", "no spaces allowed"),
        ("WORKER_KEY_FILE", "/nowhere"),
        ("WORKER_WARM_PROCESSES", "9"),
        ("HEADRACE_TYPO", "1"),
    ],
)
def test_a_setting_that_does_not_do_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    for each, given_value in {**VALUES, "WORKER_KEY_FILE": str(key), name: value}.items():
        monkeypatch.setenv(each, given_value)
    with pytest.raises(SettingsError, match=name):
        load(WorkerSettings)


def test_sizes_and_lists_are_read_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    given_values: dict[str, Any] = {
        "WORKER_KEY_FILE": str(key),
        "WORKER_MEMORY": "512MiB",
        "WORKER_FILE_ROOTS": "/data, /srv",
        "WORKER_DENY_ENDPOINTS": "127.0.0.1:5432,[::1]:4222",
        "WORKER_DEFINITION_ENV": "REGION",
        "REGION": "eu",
    }
    for name, value in {**VALUES, **given_values}.items():
        monkeypatch.setenv(name, value)

    settings = load(WorkerSettings)
    options = settings.engine_options(tmp_path)

    assert settings.worker_memory == 512 * 2**20
    assert options.file_roots == ("/data", "/srv")
    assert options.definition_environment == {"REGION": "eu"}
    environment = options.environment("x", "headrace/1")
    assert environment.guard.denied_endpoints == (("127.0.0.1", 5432), ("::1", 4222))
    assert environment.memory_limit_bytes * 4 < 512 * 2**20
