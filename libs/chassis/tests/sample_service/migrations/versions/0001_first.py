"""The chassis' tables, those of forwarders among them, and a table of effects."""

from alembic import op
from headrace_chassis.forwarder import create_forwarder
from headrace_chassis.outbox import create_outbox

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_outbox(op)
    create_forwarder(op)
    op.execute("CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL)")
