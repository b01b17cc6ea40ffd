"""Where the state lies and who may read it."""

import stat
from pathlib import Path

import pytest
from headrace_local.home import HOME_VARIABLE, Home, find_home, write_private


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_secret_folders_are_closed_to_others(home: Home) -> None:
    for folder in (home.secrets, home.tokens, home.logs, home.work, home.temp):
        assert mode(folder) == 0o700
    assert mode(home.root) & 0o066 == 0, (
        "others may pass through to PostgreSQL's data, and neither list nor write"
    )


def test_private_files_are_never_open_even_for_a_moment(home: Home) -> None:
    path = home.secrets / "value"
    write_private(path, b"one")
    write_private(path, b"two")
    assert (path.read_bytes(), mode(path)) == (b"two", 0o600)
    assert [entry.name for entry in home.secrets.iterdir()] == ["value"], "no partial file stays behind"


def test_sockets_move_where_the_path_would_be_too_long(tmp_path: Path) -> None:
    short = Home(Path("/srv/headrace"))
    long = Home(tmp_path / ("x" * 90))
    assert short.sockets == short.run
    assert len(str(long.sockets)) < 60
    assert long.sockets != Home(tmp_path / ("y" * 90)).sockets, "two stacks never share a folder"


def test_home_comes_from_the_argument_then_the_variable_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_home().root == tmp_path / ".headrace"
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "other"))
    assert find_home().root == tmp_path / "other"
    assert find_home(tmp_path / "given").root == tmp_path / "given"


def test_a_stack_within_the_temporary_folder_does_not_open_it_to_pipelines(tmp_path: Path) -> None:
    inside = Home(tmp_path / "home")
    outside = Home(Path("/srv/headrace"))
    assert inside.file_roots() == [inside.work, inside.temp]
    assert len(outside.file_roots()) == 3
