"""When a probe was leased, and which attempts at closing a pipeline were refused."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column and a table."""
    op.execute("ALTER TABLE probes ADD COLUMN leased_at timestamptz")
    op.execute("CREATE TABLE refused_closings (pipeline uuid PRIMARY KEY, attempt bigint NOT NULL)")
