"""Alembic revisions: they only add."""
