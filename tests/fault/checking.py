"""What must hold when the dust has settled, read from the databases themselves."""

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import httpx
from headrace_connectors.api import LoadKey
from headrace_connectors.ledger import load_id

from .cluster import Cluster, until
from .submitting import Submitted, submit
from .workload import ADDS_EACH_TIME, KINDS, TABLES, Pipeline, Places, Post, create

_END_SECONDS = 900.0
_FINAL = ("COMPLETED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Digest:
    """The rows of a table, whatever their order."""

    rows: int
    checksum: str


def digest(cluster: Cluster, table: str, times: int = 1) -> Digest:
    """The number of rows, and a checksum of all values; as if each row were there so many times."""
    rows_as_text = f"SELECT md5(t::text) AS h FROM {table} t, generate_series(1, {times})"
    statement = f"SELECT count(*), coalesce(md5(string_agg(h, '' ORDER BY h)), '') FROM ({rows_as_text})"
    ((rows, checksum),) = cluster.sql("warehouse", statement)
    return Digest(rows, checksum)


class Reference:
    """What the tables of a pipeline hold after so many undisturbed runs."""

    def __init__(self, cluster: Cluster, post: Post, places: Places) -> None:
        self._cluster = cluster
        self._once = {kind: create(post, places, kind) for kind in KINDS}
        states = await_end(cluster, submit(cluster, list(self._once.values()), each=1))
        assert states == {"COMPLETED": len(KINDS)}, states

    def after(self, kind: str, runs: int) -> list[Digest]:
        """The tables of one run, repeated where each run adds its rows."""
        once = self._once[kind]
        suffixes = TABLES.get(kind, ("",))
        times = [runs if (kind, suffix) in ADDS_EACH_TIME else 1 for suffix in suffixes]
        return [digest(self._cluster, table, n) for table, n in zip(once.tables, times, strict=True)]


def await_end(cluster: Cluster, submitted: Submitted, seconds: float = _END_SECONDS) -> Counter[str]:
    """Waits until all accepted runs are final; returns how many are in which state."""
    ids = list(submitted.runs)

    def states() -> Counter[str]:
        rows = cluster.sql(
            "execution", "SELECT state, count(*) FROM runs WHERE id = ANY($1::uuid[]) GROUP BY 1", ids
        )
        return Counter({str(state): int(count) for state, count in rows})

    deadline = time.monotonic() + seconds
    while True:
        found = states()
        if sum(found[state] for state in _FINAL) == len(ids):
            return found
        assert time.monotonic() < deadline, (
            f"not all final after {seconds:g} s: {found}{_stuck(cluster, ids)}"
        )
        time.sleep(0.2)


def _stuck(cluster: Cluster, ids: list[str]) -> str:
    rows = cluster.sql(
        "execution",
        "SELECT r.id, r.state, r.held, s.position, s.state, s.purpose, s.attempt, s.failures, s.lost, "
        "s.timer - now(), s.error FROM runs r JOIN stages s ON s.run = r.id "
        "WHERE r.id = ANY($1::uuid[]) AND r.finished_at IS NULL LIMIT 10",
        ids,
    )
    return "".join(f"\n  {row}" for row in rows)


def check_all(cluster: Cluster, submitted: Submitted, reference: Reference) -> None:
    """All accepted runs completed, once, and the targets hold what undisturbed runs would have left there."""
    states = await_end(cluster, submitted)
    assert states == Counter(COMPLETED=len(submitted.runs)), f"{states}{_failures(cluster, submitted)}"
    check_bookkeeping(cluster, submitted)
    check_targets(cluster, submitted, reference)
    check_lineage(cluster, submitted)


def check_lineage(cluster: Cluster, submitted: Submitted) -> None:
    """Of each run a catalogue has been told the start and then the end, each at least once."""

    def told() -> bool:
        kinds: dict[str, list[str]] = {run: [] for run in submitted.runs}
        for run, kind in cluster.lineage():
            if run in kinds and kind not in kinds[run]:
                kinds[run].append(kind)
        return all(found == ["START", "COMPLETE"] for found in kinds.values())

    until(told, "every run is told to the catalogue of lineage")


def check_targets(cluster: Cluster, submitted: Submitted, reference: Reference) -> None:
    """Rows and checksums are those of as many undisturbed runs; each load has its one receipt."""
    for pipeline in _pipelines(submitted):
        runs = [run for run, owner in submitted.runs.items() if owner is pipeline]
        found = [digest(cluster, table) for table in pipeline.tables]
        assert found == reference.after(pipeline.kind, len(runs)), pipeline
        loads = len(TABLES.get(pipeline.kind, ("",)))
        ((receipts,),) = cluster.sql(
            "warehouse",
            "SELECT count(*) FROM headrace._headrace_loads "
            "WHERE root_run_id = ANY($1) AND committed_at IS NOT NULL",
            runs,
        )
        assert receipts == loads * len(runs), pipeline


def check_bookkeeping(cluster: Cluster, submitted: Submitted) -> None:
    """No run too many, one final event a run, no live lease, an empty outbox, no query left at the target."""
    ids = list(submitted.runs)
    pipelines = [pipeline.id for pipeline in _pipelines(submitted)]
    ((runs,),) = cluster.sql(
        "execution", "SELECT count(*) FROM runs WHERE pipeline = ANY($1::uuid[])", pipelines
    )
    assert runs == len(ids), "every run that there is was accepted, and every accepted one is there"
    events = cluster.sql(
        "execution",
        "SELECT subject, count(*) FROM outbox_event WHERE subject = ANY($1) "
        "AND type SIMILAR TO 'io.headrace.run.(completed|failed|cancelled).v1' GROUP BY subject",
        ids,
    )
    assert Counter(count for _, count in events) == Counter({1: len(ids)}), "one final event a run"
    until(lambda: not _leases(cluster, ids), "no live lease is left")
    until(lambda: _is_drained(cluster), "the outboxes are drained")
    until(lambda: not queries(cluster, submitted), "no query of a worker is left at the target")
    until(lambda: not staging(cluster, submitted), "no staging table is left")
    check_over_rest(cluster, submitted)


def check_over_rest(cluster: Cluster, submitted: Submitted) -> None:
    """What users see agrees with what is stored, also where metadata shows it on the pipeline."""
    stored = dict(
        cluster.sql(
            "execution", "SELECT id::text, state FROM runs WHERE id = ANY($1::uuid[])", list(submitted.runs)
        )
    )
    with cluster.client("viewer") as client:
        for run, state in stored.items():
            shown = client.get(f"runs/{run}").json()
            assert shown["overallStatus"] == state
            if state == "COMPLETED":
                assert set(shown["taskStatuses"].values()) == {"COMPLETED"}, shown
        for pipeline in _pipelines(submitted):
            until(partial(_is_settled, client, pipeline), "metadata has followed")


def queries(cluster: Cluster, submitted: Submitted) -> list[tuple[object, ...]]:
    """What is being done for runs in the user's database."""
    return cluster.sql(
        "warehouse",
        "SELECT application_name, state, left(query, 80) FROM pg_stat_activity "
        "WHERE substr(application_name, 1, 45) = ANY($1)",
        [f"headrace/{run}" for run in submitted.runs],
    )


def staging(cluster: Cluster, submitted: Submitted) -> list[str]:
    """Staging tables of runs in the user's database."""
    tables = cluster.sql(
        "warehouse", r"SELECT relname FROM pg_class WHERE relname LIKE '\_stg\_%' AND relkind = 'r'"
    )
    loads = cluster.sql(
        "warehouse",
        "SELECT root_run_id, task, partition FROM headrace._headrace_loads WHERE root_run_id = ANY($1)",
        list(submitted.runs),
    )
    ids = {load_id(LoadKey(*load)) for load in loads}
    return [str(name) for (name,) in tables if str(name).split("_")[2] in ids]


def _leases(cluster: Cluster, runs: list[str]) -> list[tuple[object, ...]]:
    statement = "SELECT id FROM stages WHERE state = 'LEASED' AND run = ANY($1::uuid[])"
    return cluster.sql("execution", statement, runs)


def _is_drained(cluster: Cluster) -> bool:
    for database in ("metadata", "execution"):
        ((waiting, behind),) = cluster.sql(
            database,
            "SELECT (SELECT count(*) FROM outbox_event WHERE position IS NULL), position - published "
            "FROM outbox_head",
        )
        if waiting or behind:
            return False
    return True


def _is_settled(client: httpx.Client, pipeline: Pipeline) -> bool:
    return str(client.get(f"pipelines/{pipeline.id}").json()["status"]) in (
        "SUCCESS",
        "FAILED",
        "CANCELLED",
        "WARNING",
    )


def _pipelines(submitted: Submitted) -> list[Pipeline]:
    return list({pipeline.id: pipeline for pipeline in submitted.runs.values()}.values())


def _failures(cluster: Cluster, submitted: Submitted) -> str:
    rows = cluster.sql(
        "execution",
        "SELECT r.id, r.state, r.error, s.error, s.failures, s.lost FROM runs r "
        "JOIN stages s ON s.run = r.id WHERE r.id = ANY($1::uuid[]) AND r.state <> 'COMPLETED' LIMIT 10",
        list(submitted.runs),
    )
    return "".join(f"\n  {submitted.runs[str(row[0])].kind} {row}" for row in rows)
