"""Triggers of runs, and the decisions on starts that other services ask for."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN trigger text NOT NULL DEFAULT 'MANUAL', ADD COLUMN trigger_id text, "
    "ADD COLUMN start_key text, ADD COLUMN overlap text",
    # Whose turn it is among the live runs of a trigger; no row of what nothing but a caller started.
    "CREATE INDEX runs_live_of_trigger ON runs (pipeline, trigger_id, created_at, id) "
    "WHERE trigger_id IS NOT NULL AND state IN ('PENDING', 'RUNNING')",
    "CREATE INDEX runs_of_trigger ON runs (tenant, trigger_id, created_at DESC, id DESC) "
    "WHERE trigger_id IS NOT NULL",
    # A row without an outcome is one that a transaction under way is deciding.
    """
    CREATE TABLE starts (
        tenant uuid NOT NULL,
        key text NOT NULL,
        outcome text,
        run uuid,
        reason text NOT NULL DEFAULT '',
        message text NOT NULL DEFAULT '',
        running text NOT NULL DEFAULT '',
        decided_at timestamptz NOT NULL,
        PRIMARY KEY (tenant, key)
    ) WITH (fillfactor = 90)
    """,
    "CREATE INDEX starts_by_age ON starts (decided_at)",
)


def upgrade() -> None:
    """Adds them."""
    for statement in _STATEMENTS:
        op.execute(statement)
