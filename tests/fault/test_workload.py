"""The workload itself, undisturbed: what the faults are measured against is right."""

import httpx

from .checking import Reference, check_all
from .cluster import Cluster
from .submitting import submit
from .workload import CUSTOMERS, KINDS, LEAST, ORDERS, Places, create, posting

RUNS = 3


def test_undisturbed_runs_leave_what_they_should(
    cluster: Cluster, admin: httpx.Client, places: Places, reference: Reference
) -> None:
    pipelines = [create(posting(admin), places, kind) for kind in KINDS]

    submitted = submit(cluster, pipelines, each=RUNS)

    check_all(cluster, submitted, reference)
    assert {kind: [each.rows for each in reference.after(kind, RUNS)] for kind in KINDS} == {
        "noop": [],
        "values_append": [3 * 40 * RUNS],
        "csv_merge": [sum((number * 37 % 600) / 10 - 10 >= 0 for number in range(20_000))],
        "copy_append": [ORDERS * RUNS],
        "stages_replace": [CUSTOMERS],
        "incremental_append": [ORDERS],
        "two_sinks": [CUSTOMERS * RUNS, CUSTOMERS],
        "approved_append": [(CUSTOMERS - LEAST) * RUNS],
    }
