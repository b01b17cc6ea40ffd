"""One stack with two of everything for all tests of this folder; each test leaves it whole."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .checking import Reference
from .cluster import Cluster
from .workload import Places, posting, prepare


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each test here the time that its own waits may take; they say what is missing when it is over."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def shared() -> Iterator[Cluster]:
    """The stack."""
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The stack, all of it ready at the beginning and again at the end."""
    shared.disarm()
    shared.await_ready()
    yield shared
    shared.disarm()
    shared.await_ready()


@pytest.fixture(scope="session")
def admin(shared: Cluster) -> Iterator[httpx.Client]:
    """An admin of the tenant."""
    with shared.client() as client:
        yield client


@pytest.fixture(scope="session")
def places(shared: Cluster, admin: httpx.Client) -> Places:
    """The workload's sources."""
    return prepare(shared, admin)


@pytest.fixture(scope="session")
def reference(shared: Cluster, admin: httpx.Client, places: Places) -> Reference:
    """What undisturbed runs leave."""
    return Reference(shared, posting(admin), places)
