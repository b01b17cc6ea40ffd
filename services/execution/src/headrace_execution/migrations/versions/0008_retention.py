"""What expires: outputs by when they landed, logs by when they were written."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # The receipt in its stage is what counts; this only says when the file of a run goes.
    """
    CREATE TABLE outputs (
        run uuid NOT NULL,
        sink text NOT NULL,
        tenant uuid NOT NULL,
        pipeline uuid NOT NULL,
        landed_at timestamptz NOT NULL,
        PRIMARY KEY (run, sink)
    )
    """,
    "CREATE INDEX outputs_by_age ON outputs (landed_at)",
    "CREATE INDEX log_chunks_by_age ON log_chunks (last_at)",
    "CREATE INDEX run_notes_by_age ON run_notes (at)",
)


def upgrade() -> None:
    """Creates them."""
    for statement in _STATEMENTS:
        op.execute(statement)
