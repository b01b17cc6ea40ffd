"""The audit trail: a chain of events for each tenant."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # Where the chain of a tenant ends.
    """
CREATE TABLE audit_chain (
    tenant   uuid PRIMARY KEY,
    sequence bigint NOT NULL DEFAULT 1,
    hash     bytea NOT NULL DEFAULT ''
) WITH (fillfactor = 50)
""",
    """
CREATE TABLE audit_event (
    tenant        uuid NOT NULL,
    sequence      bigint NOT NULL,
    at            timestamptz NOT NULL,
    actor         text NOT NULL,
    via           text,
    action        text NOT NULL,
    object_type   text NOT NULL,
    object_id     uuid NOT NULL,
    object_name   text NOT NULL,
    workspace_id  uuid,
    request_id    text NOT NULL,
    fields        text[] NOT NULL,
    hash          bytea NOT NULL CHECK (length(hash) = 32),
    previous_hash bytea NOT NULL CHECK (length(previous_hash) IN (0, 32)),
    PRIMARY KEY (tenant, sequence)
)
""",
    "CREATE INDEX audit_event_by_workspace ON audit_event (tenant, workspace_id, sequence DESC)",
    "CREATE INDEX audit_event_by_object ON audit_event (tenant, object_id, sequence DESC)",
    "CREATE INDEX audit_event_by_actor ON audit_event (tenant, actor, sequence DESC)",
    """
CREATE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit events are only ever added' USING ERRCODE = 'restrict_violation';
END $$
""",
    """
CREATE TRIGGER audit_event_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit()
""",
)


def upgrade() -> None:
    """Adds the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops them."""
    op.execute("DROP TABLE audit_event, audit_chain")
    op.execute("DROP FUNCTION refuse_change_of_audit")
