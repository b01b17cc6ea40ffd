"""How editors draw pipelines, and the ids by which callers know their connector and schema."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns: absent means not given."""
    op.execute(
        "ALTER TABLE pipeline_version"
        " ADD COLUMN layout text, ADD COLUMN connector_id uuid, ADD COLUMN schema_id uuid"
    )


def downgrade() -> None:
    """Drops them."""
    op.execute(
        "ALTER TABLE pipeline_version DROP COLUMN layout, DROP COLUMN connector_id, DROP COLUMN schema_id"
    )
