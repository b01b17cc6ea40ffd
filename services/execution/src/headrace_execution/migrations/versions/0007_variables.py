"""The values that runs were given for variables of their definitions."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column: absent where a run was given none."""
    op.execute("ALTER TABLE runs ADD COLUMN variables text")
