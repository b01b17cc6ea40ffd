"""What pipelines show of their schedules."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # A deleted pipeline has no row of pipeline_status any more, and so takes no schedules.
    """
    CREATE TABLE pipeline_schedule (
        schedule_id uuid PRIMARY KEY,
        pipeline_id uuid NOT NULL REFERENCES pipeline_status ON DELETE CASCADE,
        active      boolean NOT NULL,
        next_run_at timestamptz
    )
    """,
    "CREATE INDEX pipeline_schedule_by_pipeline ON pipeline_schedule (pipeline_id)",
    "ALTER TABLE pipeline_status ADD COLUMN next_run_at timestamptz",
)


def upgrade() -> None:
    """Adds the table and the column."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Removes them."""
    op.execute("ALTER TABLE pipeline_status DROP COLUMN next_run_at")
    op.execute("DROP TABLE pipeline_schedule")
