"""Schedules, their progress and their ticks; what is known of pipelines and workspaces; the outbox."""

from alembic import op
from headrace_chassis.outbox import create_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
-- What is known of pipelines from metadata: the row is the lock under which schedules of one are made.
CREATE TABLE pipeline (
    id           uuid PRIMARY KEY,
    tenant       uuid NOT NULL,
    workspace_id uuid NOT NULL,
    version      integer NOT NULL,
    is_active    boolean NOT NULL,
    deleted_at   timestamptz,
    purged_at    timestamptz
);
CREATE INDEX pipeline_to_purge ON pipeline (deleted_at) WHERE deleted_at IS NOT NULL AND purged_at IS NULL;
CREATE INDEX pipeline_purged ON pipeline (purged_at) WHERE purged_at IS NOT NULL;

CREATE TABLE workspace (
    id          uuid PRIMARY KEY,
    tenant      uuid NOT NULL,
    timezone    text NOT NULL,
    country     text,
    subdivision text,
    holidays    date[] NOT NULL,
    updated_at  timestamptz NOT NULL
);

-- The terms of a schedule, which people change.
CREATE TABLE schedule (
    id                 uuid PRIMARY KEY,
    tenant             uuid NOT NULL,
    workspace_id       uuid NOT NULL,
    pipeline_id        uuid NOT NULL REFERENCES pipeline,
    managed_by         text NOT NULL CHECK (managed_by IN ('USER', 'PIPELINE')),
    version            integer NOT NULL CHECK (version >= 1),
    status             text NOT NULL CHECK (status IN ('ACTIVE', 'PAUSED')),
    cron_expression    text NOT NULL,
    timezone           text NOT NULL,
    business_days_only boolean NOT NULL,
    skip_holidays      boolean NOT NULL,
    country            text,
    subdivision        text,
    windows            text NOT NULL,
    overlap            text NOT NULL CHECK (overlap IN ('SKIP', 'QUEUE', 'CANCEL_RUNNING')),
    queue_limit        integer NOT NULL,
    catchup            text NOT NULL CHECK (catchup IN ('SKIP_TO_CURRENT', 'RUN_ALL', 'RUN_LATEST_N')),
    catchup_limit      integer,
    parameters         text NOT NULL,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    created_by         text NOT NULL
);
CREATE UNIQUE INDEX schedule_managed_key ON schedule (pipeline_id) WHERE managed_by = 'PIPELINE';
CREATE INDEX schedule_by_pipeline ON schedule (pipeline_id, created_at DESC, id DESC);
CREATE INDEX schedule_by_workspace ON schedule (workspace_id, created_at DESC, id DESC);
CREATE INDEX schedule_by_tenant ON schedule (tenant, created_at DESC, id DESC);
CREATE INDEX schedule_with_holidays ON schedule (workspace_id) WHERE skip_holidays;

-- How far a schedule has come, which its ticks change. Its row is the lock of the schedule and of its ticks.
CREATE TABLE progress (
    schedule_id      uuid PRIMARY KEY REFERENCES schedule ON DELETE CASCADE,
    tenant           uuid NOT NULL,
    decided_until    timestamptz NOT NULL,
    pipeline_active  boolean NOT NULL,
    reprieve_until   timestamptz,
    reprieve_catchup text,
    reprieve_limit   integer,
    reprieve_reason  text,
    next_due         timestamptz,
    next_run_at      timestamptz,
    held_until       timestamptz,
    starting         boolean NOT NULL DEFAULT false,
    CHECK (num_nulls(reprieve_until, reprieve_catchup, reprieve_reason) IN (0, 3))
) WITH (fillfactor = 70);
CREATE INDEX progress_due ON progress (next_due) WHERE next_due IS NOT NULL AND NOT starting;
CREATE INDEX progress_next_run ON progress (tenant, next_run_at, schedule_id) WHERE next_run_at IS NOT NULL;

-- The decisions: each tick once. DUE is decided to run and not started yet; the others are final.
CREATE TABLE tick (
    schedule_id    uuid NOT NULL REFERENCES schedule ON DELETE CASCADE,
    at             timestamptz NOT NULL,
    through        timestamptz NOT NULL CHECK (through >= at),
    interval_start timestamptz NOT NULL,
    tenant         uuid NOT NULL,
    state          text NOT NULL CHECK (state IN ('DUE', 'FIRED', 'SKIPPED')),
    overlap        text,
    queue_limit    integer NOT NULL,
    reason         text,
    message        text,
    run_id         uuid,
    attempts       integer NOT NULL DEFAULT 0,
    leased_until   timestamptz,
    decided_at     timestamptz NOT NULL,
    PRIMARY KEY (schedule_id, at)
);
CREATE INDEX tick_due ON tick (decided_at, at) WHERE state = 'DUE';
CREATE INDEX tick_due_of_schedule ON tick (schedule_id, at) WHERE state = 'DUE';
CREATE INDEX tick_decided ON tick (decided_at) WHERE state <> 'DUE';
"""


def upgrade() -> None:
    """Creates the schema."""
    # One statement at a time: the driver prepares them.
    for statement in _TABLES.split(";\n")[:-1]:
        op.execute(statement)
    create_outbox(op)


def downgrade() -> None:
    """There is no way back from the first version but to drop the database.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("the first version has nothing before it")
