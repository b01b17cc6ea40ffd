"""How far runs have been told to a catalogue of lineage."""

from alembic import op
from headrace_chassis.forwarder import create_forwarder

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a table."""
    create_forwarder(op)
