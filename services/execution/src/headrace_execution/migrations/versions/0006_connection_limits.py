"""Stages that use connections with limits: which these are, and what waits or runs of them."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE stages ADD COLUMN limited text",
    # In the place of stages_ready: what also waits for a connection must not stand in the way of the others.
    "CREATE INDEX stages_ready_free ON stages (purpose DESC, priority DESC, ready_at, id) "
    "WHERE state = 'READY' AND (limited IS NULL OR purpose = 'SETTLE')",
    "DROP INDEX stages_ready",
    "CREATE INDEX stages_ready_limited ON stages (limited, priority DESC, ready_at, id) "
    "WHERE state = 'READY' AND limited IS NOT NULL AND purpose = 'RUN'",
    "CREATE INDEX stages_leased_limited ON stages (limited) "
    "WHERE state = 'LEASED' AND limited IS NOT NULL AND purpose = 'RUN'",
)


def upgrade() -> None:
    """Adds them."""
    for statement in _STATEMENTS:
        op.execute(statement)
