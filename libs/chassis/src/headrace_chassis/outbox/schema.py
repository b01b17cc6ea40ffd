"""The tables that every service's database has: the outbox, the positions and inbox of consumers, idempotency
keys."""

from typing import Protocol

_STATEMENTS = (
    # `position` is null until the relay has seen the row committed: see the sequencer.
    """
    CREATE TABLE outbox_event (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id uuid NOT NULL UNIQUE,
        position bigint UNIQUE,
        type text NOT NULL,
        tenant uuid NOT NULL,
        subject text NOT NULL,
        data bytea NOT NULL,
        traceparent text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "CREATE INDEX outbox_event_unsequenced ON outbox_event (id) WHERE position IS NULL",
    # Positions count on when all events have been pruned, so they are kept apart from them. One row, ever.
    """
    CREATE TABLE outbox_head (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        position bigint NOT NULL DEFAULT 0,
        published bigint NOT NULL DEFAULT 0,
        pruned bigint NOT NULL DEFAULT 0,
        publisher text,
        publisher_until timestamptz
    )
    """,
    "INSERT INTO outbox_head DEFAULT VALUES",
    """
    CREATE TABLE consumer_position (
        consumer text NOT NULL,
        source text NOT NULL,
        position bigint NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (consumer, source)
    )
    """,
    """
    CREATE TABLE inbox (
        consumer text NOT NULL,
        event_id uuid NOT NULL,
        handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (consumer, event_id)
    )
    """,
    "CREATE INDEX inbox_handled_at ON inbox (handled_at)",
    # Events whose handling failed again and again: kept for people, so that the ones behind them are not held
    # up.
    """
    CREATE TABLE parked_event (
        consumer text NOT NULL,
        event_id uuid NOT NULL,
        source text NOT NULL,
        event bytea NOT NULL,
        error text NOT NULL,
        parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (consumer, event_id)
    )
    """,
    """
    CREATE TABLE idempotency (
        tenant uuid NOT NULL,
        principal text NOT NULL,
        rpc text NOT NULL,
        key text NOT NULL,
        body_hash bytea NOT NULL,
        answer bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (tenant, principal, rpc, key)
    )
    """,
    "CREATE INDEX idempotency_created_at ON idempotency (created_at)",
)


class Operations(Protocol):
    """What is used of alembic's `op`."""

    def execute(self, sqltext: str) -> None:
        """Runs one statement."""


def create_outbox(op: Operations) -> None:
    """Creates the chassis' tables; a service calls it in its first migration with alembic's `op`."""
    for statement in _STATEMENTS:
        op.execute(statement)
