"""One consumer follows the ends of runs where backfills and dependencies had one each.

It begins where the one that was behind had come to. What the other had handled is handled again, which does
no harm: an interval ends once, and a dependent run starts once a key.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Gives the new consumer its position."""
    op.execute(
        "INSERT INTO consumer_position (consumer, source, position) "
        "SELECT 'scheduler.run_ends', source, min(position) FROM consumer_position "
        "WHERE consumer IN ('scheduler.backfills', 'scheduler.dependencies') GROUP BY source "
        "ON CONFLICT DO NOTHING"
    )


def downgrade() -> None:
    """Forgets it; the two go on where they were, over what they have handled already."""
    op.execute("DELETE FROM consumer_position WHERE consumer = 'scheduler.run_ends'")
