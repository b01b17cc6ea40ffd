"""Workspaces, pipelines with immutable versions, connections, and the outbox."""

from alembic import op
from headrace_chassis.outbox import create_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE workspace (
    id             uuid PRIMARY KEY,
    tenant         uuid NOT NULL,
    slug           text NOT NULL,
    name           text NOT NULL,
    country        text,
    subdivision    text,
    holidays       date[] NOT NULL,
    timezone       text NOT NULL,
    deploy_on_push boolean NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, slug)
);

-- The head of a pipeline. It is narrow: what a version holds stands in pipeline_version alone, but for the
-- name and the tags, which lists filter by.
CREATE TABLE pipeline (
    id                uuid PRIMARY KEY,
    tenant            uuid NOT NULL,
    workspace_id      uuid NOT NULL REFERENCES workspace,
    name              text NOT NULL,
    slug              text NOT NULL,
    version           integer NOT NULL CHECK (version >= 1),
    tags              text[] NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    created_by        text NOT NULL,
    deletion          text NOT NULL DEFAULT 'NONE' CHECK (deletion IN ('NONE', 'CLOSING', 'DELETED')),
    deletion_force    boolean NOT NULL DEFAULT false,
    deletion_attempt  integer NOT NULL DEFAULT 0,
    deletion_tried_at timestamptz,
    deletion_by       text
);
CREATE UNIQUE INDEX pipeline_name_key ON pipeline (workspace_id, name) WHERE deletion <> 'DELETED';
CREATE UNIQUE INDEX pipeline_slug_key ON pipeline (workspace_id, slug) WHERE deletion <> 'DELETED';
CREATE INDEX pipeline_by_workspace ON pipeline (workspace_id, created_at DESC, id DESC)
    WHERE deletion <> 'DELETED';
CREATE INDEX pipeline_by_tenant ON pipeline (tenant, created_at DESC, id DESC) WHERE deletion <> 'DELETED';
CREATE INDEX pipeline_tags ON pipeline USING gin (tags) WHERE deletion <> 'DELETED';
CREATE INDEX pipeline_closing ON pipeline (deletion_tried_at) WHERE deletion = 'CLOSING';

-- Settings that are null were not given through the API; `declared` holds those that the text declares
-- itself.
CREATE TABLE pipeline_version (
    pipeline_id          uuid NOT NULL REFERENCES pipeline,
    version              integer NOT NULL CHECK (version >= 1),
    tenant               uuid NOT NULL,
    name                 text NOT NULL,
    text                 text NOT NULL,
    description          text,
    schedule_cron        text,
    tags                 text[],
    source_connection_id uuid,
    target_connection_id uuid,
    max_retries          integer,
    retry_delay_seconds  integer,
    timeout_seconds      integer,
    notifications        jsonb,
    is_active            boolean,
    version_label        text,
    declared             jsonb NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),
    created_by           text NOT NULL,
    PRIMARY KEY (pipeline_id, version)
);

-- What a pipeline shows of its latest run. It changes with every run, so it stands apart from the head and
-- its indexes.
CREATE TABLE pipeline_status (
    pipeline_id     uuid PRIMARY KEY REFERENCES pipeline ON DELETE CASCADE,
    tenant          uuid NOT NULL,
    workspace_id    uuid NOT NULL,
    created_at      timestamptz NOT NULL,
    status          text NOT NULL DEFAULT 'DRAFT',
    run_id          uuid,
    run_phase       smallint NOT NULL DEFAULT 0,
    run_accepted_at timestamptz,
    run_finished_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX pipeline_status_by_workspace
    ON pipeline_status (workspace_id, status, created_at DESC, pipeline_id DESC);
CREATE INDEX pipeline_status_by_tenant
    ON pipeline_status (tenant, status, created_at DESC, pipeline_id DESC);

-- The words by which the latest version of a pipeline refers to connections: names, or ids in text form.
CREATE TABLE connection_reference (
    pipeline_id  uuid NOT NULL REFERENCES pipeline ON DELETE CASCADE,
    workspace_id uuid NOT NULL,
    reference    text NOT NULL,
    PRIMARY KEY (pipeline_id, reference)
);
CREATE INDEX connection_reference_by_word ON connection_reference (workspace_id, reference);

CREATE TABLE purge_acknowledgement (
    pipeline_id     uuid NOT NULL REFERENCES pipeline ON DELETE CASCADE,
    owner           text NOT NULL,
    acknowledged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline_id, owner)
);

CREATE TABLE connection (
    id                uuid PRIMARY KEY,
    tenant            uuid NOT NULL,
    workspace_id      uuid NOT NULL REFERENCES workspace,
    name              text NOT NULL,
    description       text,
    type              text NOT NULL,
    host              text,
    port              integer,
    database          text,
    username          text,
    path              text,
    options           jsonb NOT NULL,
    secret_ref        text,
    secret_key_id     text,
    secret_nonce      bytea,
    secret_ciphertext bytea,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    created_by        text NOT NULL,
    CONSTRAINT connection_name_key UNIQUE (workspace_id, name),
    CHECK (num_nulls(secret_key_id, secret_nonce, secret_ciphertext) IN (0, 3)),
    CHECK (secret_ref IS NULL OR secret_key_id IS NULL)
);
CREATE INDEX connection_by_tenant ON connection (tenant, name, id);
CREATE INDEX connection_secret_key ON connection (secret_key_id) WHERE secret_key_id IS NOT NULL;
"""

# Versions never change, whatever a program error or a hand at psql tries; only those of a deleted pipeline
# may go.
_IMMUTABLE_VERSIONS = (
    """
CREATE FUNCTION refuse_change_of_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (
        SELECT FROM pipeline WHERE id = OLD.pipeline_id AND deletion = 'DELETED'
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'version % of pipeline % is immutable', OLD.version, OLD.pipeline_id
        USING ERRCODE = 'restrict_violation';
END $$
""",
    """
CREATE TRIGGER pipeline_version_immutable BEFORE UPDATE OR DELETE ON pipeline_version
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_version()
""",
)

# A second line behind the guarded updates of the store: the table of domain/deletion.py.
_DELETION_EDGES = (
    """
CREATE FUNCTION refuse_deletion_edge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.deletion, NEW.deletion) NOT IN (
        ('NONE', 'CLOSING'), ('CLOSING', 'NONE'), ('CLOSING', 'DELETED')
    ) THEN
        RAISE EXCEPTION 'pipeline % cannot go from % to %', OLD.id, OLD.deletion, NEW.deletion
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER pipeline_deletion_edges BEFORE UPDATE OF deletion ON pipeline
    FOR EACH ROW WHEN (OLD.deletion IS DISTINCT FROM NEW.deletion) EXECUTE FUNCTION refuse_deletion_edge()
""",
)

# Search by a part of a name. Without the extension the search still works, at the cost of looking at every
# name of the workspace.
_SEARCH_INDEXES = """
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX pipeline_name_search ON pipeline USING gin (lower(name) gin_trgm_ops) WHERE deletion <>
    'DELETED'; CREATE INDEX connection_name_search ON connection USING gin (lower(name) gin_trgm_ops);
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported OR undefined_object THEN
    RAISE NOTICE 'pg_trgm is not available: searches by name use no index';
END $$
"""


def upgrade() -> None:
    """Creates the schema."""
    # One statement at a time: the driver prepares them.
    for statement in (*_TABLES.split(";\n")[:-1], *_IMMUTABLE_VERSIONS, *_DELETION_EDGES, _SEARCH_INDEXES):
        op.execute(statement)
    create_outbox(op)


def downgrade() -> None:
    """There is no way back from the first version but to drop the database.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("the first version has nothing before it")
