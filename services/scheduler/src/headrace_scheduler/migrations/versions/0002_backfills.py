"""Backfills and their intervals."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = """
-- The row of a backfill is the lock of its intervals. The counts change in the transactions that change them.
CREATE TABLE backfill (
    id          uuid PRIMARY KEY,
    tenant      uuid NOT NULL,
    workspace_id uuid NOT NULL,
    pipeline_id uuid NOT NULL REFERENCES pipeline,
    first_text  text NOT NULL,
    last_text   text NOT NULL,
    range_start timestamptz NOT NULL,
    range_end   timestamptz NOT NULL CHECK (range_end > range_start),
    granularity text NOT NULL CHECK (granularity IN ('HOURLY', 'DAILY', 'WEEKLY', 'MONTHLY')),
    timezone    text NOT NULL,
    concurrency integer NOT NULL CHECK (concurrency >= 1),
    priority    text NOT NULL CHECK (priority IN ('LOW', 'MEDIUM', 'HIGH')),
    parameters  text NOT NULL,
    status      text NOT NULL
                CHECK (status IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED')),
    pending     integer NOT NULL CHECK (pending >= 0),
    live        integer NOT NULL CHECK (live >= 0),
    completed   integer NOT NULL CHECK (completed >= 0),
    failed      integer NOT NULL CHECK (failed >= 0),
    cancelled   integer NOT NULL CHECK (cancelled >= 0),
    rests_until timestamptz,
    claimed_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    started_at  timestamptz,
    finished_at timestamptz,
    created_by  text NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX backfill_by_pipeline ON backfill (pipeline_id, created_at DESC, id DESC);
CREATE INDEX backfill_by_workspace ON backfill (workspace_id, created_at DESC, id DESC);
CREATE INDEX backfill_by_tenant ON backfill (tenant, created_at DESC, id DESC);
CREATE INDEX backfill_with_room ON backfill (
    (array_position('{HIGH,MEDIUM,LOW}'::text[], priority)), claimed_at
) WHERE status IN ('PENDING', 'RUNNING') AND pending > 0 AND live < concurrency;

-- `due_at`: when somebody has to look after a live interval: a start whose outcome is not known, a run whose
-- end may have been missed, or one to be cancelled.
CREATE TABLE backfill_interval (
    backfill_id uuid NOT NULL REFERENCES backfill ON DELETE CASCADE,
    number      integer NOT NULL,
    starts_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL CHECK (ends_at > starts_at),
    state       text NOT NULL
                CHECK (state IN ('PENDING', 'STARTING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    attempt     integer NOT NULL,
    run_id      uuid,
    reason      text,
    message     text,
    finished_at timestamptz,
    due_at      timestamptz,
    PRIMARY KEY (backfill_id, number)
);
CREATE INDEX backfill_interval_by_state ON backfill_interval (backfill_id, state, number);
CREATE INDEX backfill_interval_due ON backfill_interval (due_at) WHERE due_at IS NOT NULL;
"""


def upgrade() -> None:
    """Creates the tables."""
    # One statement at a time: the driver prepares them.
    for statement in _TABLES.split(";\n")[:-1]:
        op.execute(statement)


def downgrade() -> None:
    """There is no way back that keeps backfills.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("migrations only add")
