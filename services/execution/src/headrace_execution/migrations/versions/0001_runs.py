"""Runs, stages, tasks, workers, cursors, probes and closed pipelines.

Written for a queue table's life: small rows (what does not change about a run is in `recipes`), partial
indexes over what is live, so that history costs nothing, and room on each page for updates in place. There
are no foreign keys from stages and tasks to runs: one writer makes them in one transaction, and each would
cost a look-up a row.
"""

from alembic import op
from headrace_chassis.outbox import create_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The tables of headrace_execution.domain.states, kept by the database as well; a test compares the two.
_STEPS = {
    "runs": {
        "PENDING": "RUNNING FAILED CANCELLED",
        "RUNNING": "COMPLETED FAILED CANCELLED",
    },
    "stages": {
        # To LEASED in two steps of one transaction.
        "BLOCKED": "READY LEASED SKIPPED CANCELLED",
        "READY": "LEASED FAILED SKIPPED CANCELLED",
        "LEASED": "READY WAITING COMPLETED FAILED CANCELLED",
        "WAITING": "READY FAILED CANCELLED",
    },
    "tasks": {
        "PENDING": "RUNNING WAITING COMPLETED FAILED SKIPPED CANCELLED",
        "WAITING": "PENDING COMPLETED FAILED SKIPPED CANCELLED",
        "RUNNING": "PENDING WAITING COMPLETED FAILED SKIPPED CANCELLED",
    },
}

_STATEMENTS = (
    # Fences grow over all runs: the ledgers of targets compare them across the retries of a run.
    "CREATE SEQUENCE fences AS bigint CACHE 1",
    """
    CREATE TABLE recipes (
        pipeline uuid NOT NULL,
        digest bytea NOT NULL,
        body text NOT NULL,
        PRIMARY KEY (pipeline, digest)
    )
    """,
    """
    CREATE TABLE runs (
        id uuid PRIMARY KEY,
        tenant uuid NOT NULL,
        workspace uuid NOT NULL,
        pipeline uuid NOT NULL,
        pipeline_version integer,
        recipe bytea NOT NULL,
        engine text NOT NULL,
        task_count integer NOT NULL,
        created_at timestamptz NOT NULL,
        logical_date timestamptz NOT NULL,
        interval_start timestamptz,
        interval_end timestamptz,
        parameters text NOT NULL,
        triggered_by text NOT NULL,
        trigger_label text,
        priority smallint NOT NULL,
        full_refresh boolean NOT NULL,
        root uuid,
        retry_of uuid,
        traceparent text NOT NULL,
        state text NOT NULL,
        held boolean NOT NULL,
        cancel_requested_at timestamptz,
        cancel_reason text,
        started_at timestamptz,
        finished_at timestamptz,
        error text,
        summary text,
        warning_count integer NOT NULL,
        due_at timestamptz,
        revision bigint NOT NULL
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX runs_of_tenant ON runs (tenant, created_at DESC, id DESC)",
    "CREATE INDEX runs_of_tenant_by_state ON runs (tenant, state, created_at DESC, id DESC)",
    "CREATE INDEX runs_of_workspace ON runs (workspace, created_at DESC, id DESC)",
    "CREATE INDEX runs_of_pipeline ON runs (pipeline, created_at DESC, id DESC)",
    "CREATE INDEX runs_live ON runs (pipeline) WHERE state IN ('PENDING', 'RUNNING')",
    "CREATE INDEX runs_held ON runs (pipeline, priority DESC, created_at, id) WHERE held",
    "CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL",
    """
    CREATE TABLE stages (
        id uuid PRIMARY KEY,
        run uuid NOT NULL,
        position integer NOT NULL,
        priority smallint NOT NULL,
        state text NOT NULL,
        purpose text NOT NULL,
        verdict text,
        fence bigint NOT NULL,
        worker uuid,
        leased_at timestamptz,
        attempt integer NOT NULL,
        failures integer NOT NULL,
        lost integer NOT NULL,
        unsettled boolean NOT NULL,
        stop text,
        ready_at timestamptz,
        timer timestamptz,
        settle_by timestamptz,
        error text,
        warnings text,
        receipts text,
        CHECK ((state = 'LEASED') = (worker IS NOT NULL)),
        CHECK ((state = 'READY') = (ready_at IS NOT NULL)),
        UNIQUE (run, position)
    ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)
    """,
    "CREATE INDEX stages_ready ON stages (purpose DESC, priority DESC, ready_at, id) WHERE state = 'READY'",
    "CREATE INDEX stages_leased ON stages (worker) WHERE state = 'LEASED'",
    "CREATE INDEX stages_due ON stages (LEAST(timer, settle_by)) WHERE LEAST(timer, settle_by) IS NOT NULL",
    """
    CREATE TABLE tasks (
        run uuid NOT NULL,
        position integer NOT NULL,
        state text NOT NULL,
        attempt integer NOT NULL,
        started_at timestamptz,
        finished_at timestamptz,
        rows_in bigint NOT NULL,
        rows_out bigint NOT NULL,
        bytes bigint NOT NULL,
        error text,
        retry_at timestamptz,
        PRIMARY KEY (run, position)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE workers (
        id uuid PRIMARY KEY,
        name text NOT NULL,
        slots integer NOT NULL,
        version text NOT NULL,
        engines text[] NOT NULL,
        connected_at timestamptz NOT NULL,
        lease_until timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX workers_lease ON workers (lease_until)",
    """
    CREATE TABLE cursors (
        pipeline uuid NOT NULL,
        sink text NOT NULL,
        source text NOT NULL,
        tenant uuid NOT NULL,
        value bytea NOT NULL,
        fence bigint NOT NULL,
        moved_at timestamptz NOT NULL,
        PRIMARY KEY (pipeline, sink, source)
    )
    """,
    """
    CREATE TABLE probes (
        id uuid PRIMARY KEY,
        tenant uuid NOT NULL,
        workspace uuid NOT NULL,
        kind text NOT NULL,
        connection uuid NOT NULL,
        payload text NOT NULL,
        on_behalf_of text NOT NULL,
        state text NOT NULL CHECK (state IN ('READY', 'LEASED', 'ANSWERED')),
        fence bigint NOT NULL,
        worker uuid,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        answer bytea
    )
    """,
    "CREATE INDEX probes_ready ON probes (created_at) WHERE state = 'READY'",
    "CREATE INDEX probes_leased ON probes (worker) WHERE state = 'LEASED'",
    "CREATE INDEX probes_expire ON probes (expires_at)",
    """
    CREATE TABLE closed_pipelines (
        pipeline uuid PRIMARY KEY,
        tenant uuid NOT NULL,
        closed_at timestamptz NOT NULL,
        purge_asked_at timestamptz,
        purged_at timestamptz
    )
    """,
    "CREATE INDEX closed_pipelines_to_purge ON closed_pipelines (purge_asked_at) WHERE purged_at IS NULL",
    """
    CREATE FUNCTION refuse_step() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'a row of % cannot go from % to %', TG_TABLE_NAME, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END
    $$
    """,
)


def upgrade() -> None:
    """Creates everything."""
    create_outbox(op)
    for statement in _STATEMENTS:
        op.execute(statement)
    for table, steps in _STEPS.items():
        legal = ", ".join(
            f"('{before}', '{after}')" for before, afters in steps.items() for after in afters.split()
        )
        op.execute(
            f"CREATE TRIGGER {table}_legal_step BEFORE UPDATE OF state ON {table} FOR EACH ROW "
            f"WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN ({legal})) "
            "EXECUTE FUNCTION refuse_step()"
        )
