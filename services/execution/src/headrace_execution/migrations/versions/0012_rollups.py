"""What the runs of pipelines come to, day by day: a row for each day on which one of their runs ended."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates it. A day's row is written again with each batch of its runs, in place."""
    op.execute(
        """
        CREATE TABLE pipeline_days (
            pipeline uuid NOT NULL,
            day date NOT NULL,
            tenant uuid NOT NULL,
            completed bigint NOT NULL,
            failed bigint NOT NULL,
            cancelled bigint NOT NULL,
            warned bigint NOT NULL,
            durations text NOT NULL,
            rows_read bigint NOT NULL,
            rows_written bigint NOT NULL,
            bytes_read bigint NOT NULL,
            bytes_written bigint NOT NULL,
            slot_us bigint NOT NULL,
            last_state text NOT NULL,
            last_at timestamptz NOT NULL,
            PRIMARY KEY (pipeline, day)
        ) WITH (fillfactor = 70)
        """
    )
