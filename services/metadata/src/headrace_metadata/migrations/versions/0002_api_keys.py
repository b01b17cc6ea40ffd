"""API keys, by their hashes."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
CREATE TABLE api_key (
    id           uuid PRIMARY KEY,
    tenant       uuid NOT NULL,
    name         text NOT NULL,
    role         text NOT NULL CHECK (role IN ('VIEWER', 'EDITOR', 'ADMIN')),
    workspaces   uuid[] CHECK (cardinality(workspaces) > 0),
    digest       bytea NOT NULL CHECK (length(digest) = 32),
    expires_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text NOT NULL,
    revoked_at   timestamptz,
    revoked_by   text,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
) WITH (fillfactor = 80)
""",
    # Revoked keys stay, so that what `apikey:<id>` has done can be told; no list walks over them.
    "CREATE INDEX api_key_by_tenant ON api_key (tenant, created_at DESC, id DESC) WHERE revoked_at IS NULL",
)


def upgrade() -> None:
    """Adds the table."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drops the table."""
    op.execute("DROP TABLE api_key")
