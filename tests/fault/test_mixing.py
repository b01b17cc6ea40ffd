"""The mix itself, undisturbed."""

import time
from collections import Counter

import pytest

from .cluster import Cluster
from .mixing import Mix
from .workload import Places


@pytest.mark.long
def test_undisturbed_runs_of_all_kinds_leave_what_they_should(cluster: Cluster, places: Places) -> None:
    with Mix(cluster, places) as mix:
        for _ in range(60):
            mix.check()
            time.sleep(1)  # long enough for some hundred runs

    mix.verify()
    kinds = Counter(seen.split()[0] for seen in mix.seen)
    assert set(kinds) == {"new", "whole", "approved", "gated"}
    print(f"mixed: {dict(mix.seen)}")
