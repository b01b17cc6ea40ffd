"""What requests say of who creates a pipeline, beside the caller."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column: absent means that nothing was said."""
    op.execute("ALTER TABLE pipeline ADD COLUMN created_by_label text")


def downgrade() -> None:
    """Drops it."""
    op.execute("ALTER TABLE pipeline DROP COLUMN created_by_label")
