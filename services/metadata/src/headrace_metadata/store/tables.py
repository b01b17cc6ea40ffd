"""The tables as SQLAlchemy sees them; the migrations make them."""

from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

AnyRow: TypeAlias = sa.Row[*tuple[Any, ...]]
"""A row of any columns."""

_metadata = sa.MetaData()
_moment = sa.DateTime(timezone=True)

workspace = sa.Table(
    "workspace",
    _metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("tenant", sa.Uuid),
    sa.Column("slug", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("country", sa.Text),
    sa.Column("subdivision", sa.Text),
    sa.Column("holidays", ARRAY(sa.Date)),
    sa.Column("timezone", sa.Text),
    sa.Column("deploy_on_push", sa.Boolean),
    sa.Column("allowed_variables", ARRAY(sa.Text)),
    sa.Column("created_at", _moment, server_default=sa.func.now()),
    sa.Column("updated_at", _moment, server_default=sa.func.now()),
)

pipeline = sa.Table(
    "pipeline",
    _metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("tenant", sa.Uuid),
    sa.Column("workspace_id", sa.Uuid),
    sa.Column("name", sa.Text),
    sa.Column("slug", sa.Text),
    sa.Column("version", sa.Integer),
    sa.Column("tags", ARRAY(sa.Text)),
    sa.Column("created_at", _moment, server_default=sa.func.now()),
    sa.Column("updated_at", _moment, server_default=sa.func.now()),
    sa.Column("created_by", sa.Text),
    sa.Column("created_by_label", sa.Text),
    sa.Column("deletion", sa.Text),
    sa.Column("deletion_force", sa.Boolean),
    sa.Column("deletion_attempt", sa.Integer),
    sa.Column("deletion_tried_at", _moment),
    sa.Column("deletion_by", sa.Text),
)

pipeline_version = sa.Table(
    "pipeline_version",
    _metadata,
    sa.Column("pipeline_id", sa.Uuid, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("tenant", sa.Uuid),
    sa.Column("name", sa.Text),
    sa.Column("text", sa.Text),
    sa.Column("description", sa.Text),
    sa.Column("schedule_cron", sa.Text),
    sa.Column("tags", ARRAY(sa.Text)),
    sa.Column("source_connection_id", sa.Uuid),
    sa.Column("target_connection_id", sa.Uuid),
    sa.Column("max_retries", sa.Integer),
    sa.Column("retry_delay_seconds", sa.Integer),
    sa.Column("timeout_seconds", sa.Integer),
    sa.Column("notifications", JSONB(none_as_null=True)),
    sa.Column("is_active", sa.Boolean),
    sa.Column("version_label", sa.Text),
    sa.Column("layout", sa.Text),
    sa.Column("connector_id", sa.Uuid),
    sa.Column("schema_id", sa.Uuid),
    sa.Column("declared", JSONB),
    sa.Column("created_at", _moment, server_default=sa.func.now()),
    sa.Column("created_by", sa.Text),
)

pipeline_status = sa.Table(
    "pipeline_status",
    _metadata,
    sa.Column("pipeline_id", sa.Uuid, primary_key=True),
    sa.Column("tenant", sa.Uuid),
    sa.Column("workspace_id", sa.Uuid),
    sa.Column("created_at", _moment),
    sa.Column("status", sa.Text),
    sa.Column("run_id", sa.Uuid),
    sa.Column("run_phase", sa.SmallInteger),
    sa.Column("run_accepted_at", _moment),
    sa.Column("run_finished_at", _moment),
    sa.Column("next_run_at", _moment),
)

connection_reference = sa.Table(
    "connection_reference",
    _metadata,
    sa.Column("pipeline_id", sa.Uuid, primary_key=True),
    sa.Column("workspace_id", sa.Uuid),
    sa.Column("reference", sa.Text, primary_key=True),
)

purge_acknowledgement = sa.Table(
    "purge_acknowledgement",
    _metadata,
    sa.Column("pipeline_id", sa.Uuid, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
)

connection = sa.Table(
    "connection",
    _metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("tenant", sa.Uuid),
    sa.Column("workspace_id", sa.Uuid),
    sa.Column("name", sa.Text),
    sa.Column("description", sa.Text),
    sa.Column("type", sa.Text),
    sa.Column("host", sa.Text),
    sa.Column("port", sa.Integer),
    sa.Column("database", sa.Text),
    sa.Column("username", sa.Text),
    sa.Column("path", sa.Text),
    sa.Column("options", JSONB),
    sa.Column("secret_ref", sa.Text),
    sa.Column("secret_key_id", sa.Text),
    sa.Column("secret_nonce", sa.LargeBinary),
    sa.Column("secret_ciphertext", sa.LargeBinary),
    sa.Column("max_concurrent_stages", sa.Integer),
    sa.Column("created_at", _moment, server_default=sa.func.now()),
    sa.Column("updated_at", _moment, server_default=sa.func.now()),
    sa.Column("created_by", sa.Text),
)

api_key = sa.Table(
    "api_key",
    _metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("tenant", sa.Uuid),
    sa.Column("name", sa.Text),
    sa.Column("role", sa.Text),
    sa.Column("workspaces", ARRAY(sa.Uuid)),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("expires_at", _moment),
    sa.Column("last_used_at", _moment),
    sa.Column("created_at", _moment, server_default=sa.func.now()),
    sa.Column("created_by", sa.Text),
    sa.Column("revoked_at", _moment),
    sa.Column("revoked_by", sa.Text),
)

audit_event = sa.Table(
    "audit_event",
    _metadata,
    sa.Column("tenant", sa.Uuid, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("at", _moment),
    sa.Column("actor", sa.Text),
    sa.Column("via", sa.Text),
    sa.Column("action", sa.Text),
    sa.Column("object_type", sa.Text),
    sa.Column("object_id", sa.Uuid),
    sa.Column("object_name", sa.Text),
    sa.Column("workspace_id", sa.Uuid),
    sa.Column("request_id", sa.Text),
    sa.Column("fields", ARRAY(sa.Text)),
    sa.Column("hash", sa.LargeBinary),
    sa.Column("previous_hash", sa.LargeBinary),
)
