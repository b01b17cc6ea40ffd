"""A home for each test, in a folder with a short path, which Unix sockets need."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from headrace_local.home import Home


@pytest.fixture
def home() -> Iterator[Home]:
    """An empty home with its folders made."""
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    place = Home(folder / "home")
    place.prepare()
    yield place
    shutil.rmtree(folder)
