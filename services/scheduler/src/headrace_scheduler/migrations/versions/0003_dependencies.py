"""Dependencies, how pipelines ended for which intervals, what upstreams start, and ticks that are held."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE dependency (
        id           uuid PRIMARY KEY,
        tenant       uuid NOT NULL,
        workspace_id uuid NOT NULL,
        upstream     uuid NOT NULL REFERENCES pipeline,
        downstream   uuid NOT NULL REFERENCES pipeline,
        type         text NOT NULL CHECK (type IN ('STRONG', 'WEAK')),
        created_at   timestamptz NOT NULL,
        created_by   text NOT NULL,
        CHECK (upstream <> downstream)
    )
    """,
    "CREATE UNIQUE INDEX dependency_key ON dependency (upstream, downstream)",
    "CREATE INDEX dependency_of_downstream ON dependency (downstream)",
    # The best end of a pipeline's runs for an interval: what has completed stays so.
    """
    CREATE TABLE interval_outcome (
        pipeline_id    uuid NOT NULL,
        interval_start timestamptz NOT NULL,
        interval_end   timestamptz NOT NULL,
        state          text NOT NULL CHECK (state IN ('COMPLETED', 'FAILED', 'CANCELLED')),
        run_id         uuid NOT NULL,
        told_at        timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (pipeline_id, interval_end, interval_start)
    )
    """,
    "CREATE INDEX interval_outcome_told ON interval_outcome (told_at)",
    # Runs that upstreams start. The key makes each one start once.
    """
    CREATE TABLE dependent_start (
        key            text PRIMARY KEY,
        tenant         uuid NOT NULL,
        pipeline_id    uuid NOT NULL,
        upstream_run   uuid NOT NULL,
        triggered_by   text NOT NULL,
        interval_start timestamptz,
        interval_end   timestamptz,
        state          text NOT NULL DEFAULT 'DUE' CHECK (state IN ('DUE', 'STARTED', 'REFUSED')),
        run_id         uuid,
        reason         text,
        message        text,
        leased_until   timestamptz,
        added_at       timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX dependent_start_due ON dependent_start (added_at) WHERE state = 'DUE'",
    "CREATE INDEX dependent_start_ended ON dependent_start (added_at) WHERE state <> 'DUE'",
    "CREATE INDEX dependent_start_of_pipeline ON dependent_start (pipeline_id)",
    "ALTER TABLE tick DROP CONSTRAINT tick_state_check",
    """
    ALTER TABLE tick ADD CONSTRAINT tick_state_check
        CHECK (state IN ('DUE', 'HELD', 'FIRED', 'SKIPPED')) NOT VALID
    """,
    "ALTER TABLE tick VALIDATE CONSTRAINT tick_state_check",
    "ALTER TABLE tick ADD COLUMN waits_for uuid, ADD COLUMN waits_until timestamptz,"
    " ADD COLUMN looked_at timestamptz",
    "CREATE INDEX tick_held ON tick (waits_for, waits_until) WHERE state = 'HELD'",
    "CREATE INDEX tick_held_looked_at ON tick (looked_at NULLS FIRST) WHERE state = 'HELD'",
)


def upgrade() -> None:
    """Creates the tables, and lets ticks be held."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops them; held ticks are skipped."""
    op.execute("UPDATE tick SET state = 'SKIPPED', reason = 'HELD' WHERE state = 'HELD'")
    op.execute("ALTER TABLE tick DROP COLUMN waits_for, DROP COLUMN waits_until, DROP COLUMN looked_at")
    for table in ("dependent_start", "interval_outcome", "dependency"):
        op.execute(f"DROP TABLE {table}")
