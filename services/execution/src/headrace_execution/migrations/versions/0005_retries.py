"""The live run of a chain of retries, found by the first run of the chain."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the index; it has no row of what is no retry."""
    op.execute(
        "CREATE INDEX runs_live_of_root ON runs (root) "
        "WHERE root IS NOT NULL AND state IN ('PENDING', 'RUNNING')"
    )
