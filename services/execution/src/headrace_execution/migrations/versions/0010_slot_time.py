"""How long stages have held slots of workers."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds it; NULL means none."""
    op.execute("ALTER TABLE stages ADD COLUMN slot_us bigint")
