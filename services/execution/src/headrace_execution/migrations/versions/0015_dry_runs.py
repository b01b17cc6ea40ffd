"""Questions to workers about any number of connections: dry runs ask about all that a definition uses."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the connections of a probe; a single one, as before, stays readable."""
    op.execute("ALTER TABLE probes ADD COLUMN connections text[]")
    op.execute("ALTER TABLE probes ALTER COLUMN connection DROP NOT NULL")
