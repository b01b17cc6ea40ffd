"""The demo's data and what they must add up to."""

from pathlib import Path

import pytest
from headrace_local.demo import dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked files."""
    place = tmp_path_factory.mktemp("flights")
    dataset.unpack(place)
    return place


def test_unpacking_again_restores_what_was_changed_and_nothing_else(folder: Path) -> None:
    flights, planes = folder / "flights.csv", folder / "planes.csv"
    before = (flights.stat().st_mtime_ns, planes.read_bytes())
    planes.write_text("tailnum,seats\nN1,2\n")
    dataset.unpack(folder)
    assert (flights.stat().st_mtime_ns, planes.read_bytes()) == before
    assert not list(folder.glob("*.partial"))


def test_the_source_has_what_the_demo_claims(folder: Path) -> None:
    expected = dataset.expected(folder)
    assert (expected.rows, expected.without_delay) == (336776, 8255)
    assert sum(count for count, _ in expected.delay_by_airline.values()) == 336776 - 8255
    assert sum(minutes for _, minutes in expected.delay_by_airline.values()) == expected.total_delay
