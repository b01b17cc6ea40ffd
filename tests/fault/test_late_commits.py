"""Incremental runs over a table whose writers commit out of order: source and target end as the same sets."""

import random

import pytest

from .checking import await_end, check_bookkeeping, digest
from .cluster import Cluster
from .growing import NEW, Growing
from .submitting import Submitted, persistent
from .workload import Places, create

RUNS = 200


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["mode: append", "mode: merge, keys: [id]"])
def test_two_hundred_runs_lose_no_row_and_double_none(cluster: Cluster, places: Places, mode: str) -> None:
    submitted = Submitted()
    with cluster.client("editor") as client:
        post = persistent(client, submitted)

        def run() -> None:
            run_id = post(f"pipelines/{pipeline.id}/run", {})["runId"]
            submitted.add(run_id, pipeline)
            assert await_end(cluster, Submitted({run_id: pipeline})) == {"COMPLETED": 1}

        with Growing(cluster, random.Random()) as growing:
            text = NEW.replace("GROWING", growing.table).replace("MODE", mode)
            pipeline = create(post, places, "new", text)
            for _ in range(RUNS):
                run()
        run()

    check_bookkeeping(cluster, submitted)
    assert digest(cluster, pipeline.table) == digest(cluster, growing.table)
