"""Notifications that are to reach their receivers."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # What was delivered is removed: only what waits and what was given up is there.
    """
    CREATE TABLE deliveries (
        id uuid PRIMARY KEY,
        tenant uuid NOT NULL,
        workspace uuid NOT NULL,
        pipeline uuid NOT NULL,
        channel text NOT NULL,
        target text NOT NULL,
        signing_secret text,
        body text NOT NULL,
        attempts integer NOT NULL DEFAULT 0,
        due_at timestamptz,
        parked_at timestamptz,
        last_error text,
        CHECK ((due_at IS NULL) = (parked_at IS NOT NULL))
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX deliveries_new ON deliveries (due_at) WHERE due_at IS NOT NULL AND attempts = 0",
    "CREATE INDEX deliveries_again ON deliveries (due_at) WHERE due_at IS NOT NULL AND attempts > 0",
    "CREATE INDEX deliveries_of_pipeline ON deliveries (pipeline)",
    "CREATE INDEX deliveries_parked ON deliveries (parked_at) WHERE parked_at IS NOT NULL",
)


def upgrade() -> None:
    """Creates them."""
    for statement in _STATEMENTS:
        op.execute(statement)
