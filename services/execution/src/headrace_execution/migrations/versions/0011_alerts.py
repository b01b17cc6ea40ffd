"""Alerts, and what is usual of the runs of pipelines."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE alerts (
        id uuid PRIMARY KEY,
        tenant uuid NOT NULL,
        workspace uuid NOT NULL,
        pipeline uuid NOT NULL,
        rule text NOT NULL,
        severity text NOT NULL,
        state text NOT NULL CHECK (state IN ('OPEN', 'ACKNOWLEDGED', 'RESOLVED')),
        message text NOT NULL,
        details text NOT NULL,
        run uuid,
        count bigint NOT NULL,
        opened_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL,
        as_of timestamptz NOT NULL,
        acknowledged_at timestamptz,
        acknowledged_by text,
        note text,
        resolved_at timestamptz,
        resolved_by uuid,
        CHECK ((state = 'RESOLVED') = (resolved_at IS NOT NULL))
    ) WITH (fillfactor = 70)
    """,
    "CREATE UNIQUE INDEX alerts_active ON alerts (pipeline, rule) WHERE state <> 'RESOLVED'",
    "CREATE INDEX alerts_of_tenant ON alerts (tenant, opened_at DESC, id DESC)",
    "CREATE INDEX alerts_of_tenant_by_state ON alerts (tenant, state, opened_at DESC, id DESC)",
    "CREATE INDEX alerts_of_pipeline ON alerts (pipeline, opened_at DESC, id DESC)",
    "CREATE INDEX alerts_resolved ON alerts (resolved_at) WHERE state = 'RESOLVED'",
    # The latest few runs of each pipeline, in one row that its follower replaces.
    """
    CREATE TABLE usual_runs (
        pipeline uuid PRIMARY KEY,
        samples text NOT NULL,
        late_after_ms bigint
    ) WITH (fillfactor = 50)
    """,
)


def upgrade() -> None:
    """Creates them."""
    for statement in _STATEMENTS:
        op.execute(statement)
