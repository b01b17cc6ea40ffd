"""Databases in which transactions lose now and then against somebody who was faster."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .cluster import Cluster

Tables = Mapping[str, tuple[str, ...]]
"""Tables by their databases."""

RUNNING: Tables = {
    "execution": ("runs", "stages", "tasks", "cursors", "outbox_event", "idempotency"),
    "metadata": ("pipeline", "pipeline_version", "pipeline_status", "outbox_event"),
}
"""What is written as pipelines are made and run."""

SCHEDULING: Tables = {
    "scheduler": ("progress", "tick", "backfill", "backfill_interval", "outbox_event"),
    "execution": ("runs", "starts", "outbox_event"),
}
"""What is written as runs are started by themselves."""

ONE_IN = 15


@contextmanager
def losing(cluster: Cluster, databases: Tables) -> Iterator[None]:
    """Has the databases refuse every so many statements, as deadlocks and as serialization failures."""
    for database, tables in databases.items():
        cluster.sql(database, "DROP SEQUENCE IF EXISTS attempts")
        cluster.sql(database, "CREATE SEQUENCE attempts")  # which counts what is rolled back as well
        cluster.sql(
            database,
            "CREATE OR REPLACE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ "
            "DECLARE attempt bigint := nextval('attempts'); BEGIN "
            f"IF attempt % {2 * ONE_IN} = 0 THEN RAISE EXCEPTION 'injected' USING ERRCODE = '40P01'; END IF; "
            f"IF attempt % {ONE_IN} = 0 THEN RAISE EXCEPTION 'injected' USING ERRCODE = '40001'; END IF; "
            "RETURN NULL; END $$",
        )
        for table in tables:
            cluster.sql(
                database, f"CREATE TRIGGER lose BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION lose()"
            )
    try:
        yield
    finally:
        for database, tables in databases.items():
            for table in tables:
                cluster.sql(database, f"DROP TRIGGER lose ON {table}")


def injected(cluster: Cluster, database: str) -> int:
    """How many failures there were."""
    ((count,),) = cluster.sql(database, f"SELECT last_value / {ONE_IN} FROM attempts")
    return int(count)
