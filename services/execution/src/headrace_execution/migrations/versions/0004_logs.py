"""The index of logs: where the chunks of each attempt's log are in the artifact store; and execution's own
notes.

Both hang on their run and go with it. A plain run writes into neither.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE log_chunks (
        run uuid NOT NULL,
        stage uuid NOT NULL,
        fence bigint NOT NULL,
        sequence integer NOT NULL,
        attempt integer NOT NULL,
        artifact text NOT NULL,
        lines integer NOT NULL,
        bytes integer NOT NULL,
        tasks text NOT NULL,
        first_at timestamptz NOT NULL,
        last_at timestamptz NOT NULL,
        lines_total bigint NOT NULL,
        cost_total bigint NOT NULL,
        is_head boolean NOT NULL,
        PRIMARY KEY (run, stage, fence, sequence)
    )
    """,
    """
    CREATE TABLE run_notes (
        position bigint GENERATED ALWAYS AS IDENTITY,
        run uuid NOT NULL,
        at timestamptz NOT NULL,
        level text NOT NULL,
        attempt integer NOT NULL,
        message text NOT NULL,
        fields text NOT NULL,
        PRIMARY KEY (run, position)
    )
    """,
)


def upgrade() -> None:
    """Creates both."""
    for statement in _STATEMENTS:
        op.execute(statement)
