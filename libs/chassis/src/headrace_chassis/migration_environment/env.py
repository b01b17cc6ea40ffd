"""Alembic's environment, shared by all services: revisions run on the connection that `migrations.upgrade`
gives."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
