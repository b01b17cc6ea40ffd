"""A held run may end as it is let go: where it had only to wait for signals, and these have come before."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_STEPS = {
    "PENDING": "RUNNING COMPLETED FAILED CANCELLED",
    "RUNNING": "COMPLETED FAILED CANCELLED",
}
"""Those of headrace_execution.domain.states; a test compares the two."""


def upgrade() -> None:
    """Allows the step."""
    legal = ", ".join(
        f"('{before}', '{after}')" for before, afters in _STEPS.items() for after in afters.split()
    )
    op.execute("DROP TRIGGER runs_legal_step ON runs")
    op.execute(
        "CREATE TRIGGER runs_legal_step BEFORE UPDATE OF state ON runs FOR EACH ROW "
        f"WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN ({legal})) "
        "EXECUTE FUNCTION refuse_step()"
    )
