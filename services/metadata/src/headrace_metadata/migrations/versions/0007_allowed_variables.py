"""The variables that a workspace allows its runs to be given."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.execute("ALTER TABLE workspace ADD COLUMN allowed_variables text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drops it."""
    op.execute("ALTER TABLE workspace DROP COLUMN allowed_variables")
