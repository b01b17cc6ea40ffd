"""One-time tickets for the streams of runs."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a table."""
    op.execute(
        """
        CREATE TABLE stream_tickets (
            hash bytea PRIMARY KEY,
            run uuid NOT NULL,
            tenant uuid NOT NULL,
            subject text NOT NULL,
            workspaces uuid[],
            token_expires_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX stream_tickets_expire ON stream_tickets (expires_at)")
