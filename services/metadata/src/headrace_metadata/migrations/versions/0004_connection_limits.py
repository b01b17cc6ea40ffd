"""How many stages of runs may use a connection at once."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column: absent means any number."""
    op.execute(
        "ALTER TABLE connection ADD COLUMN max_concurrent_stages integer CHECK (max_concurrent_stages > 0)"
    )
