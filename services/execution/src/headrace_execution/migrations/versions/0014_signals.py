"""Stages that wait for signals: the signal that has come, and the steps of a stage that no worker runs."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_STEPS = {
    "BLOCKED": "READY LEASED WAITING COMPLETED SKIPPED CANCELLED",
    "READY": "LEASED FAILED SKIPPED CANCELLED",
    "LEASED": "READY WAITING COMPLETED FAILED CANCELLED",
    "WAITING": "READY COMPLETED FAILED SKIPPED CANCELLED",
}
"""Those of headrace_execution.domain.states; a test compares the two."""


def upgrade() -> None:
    """Adds the column, and allows the steps."""
    op.execute("ALTER TABLE stages ADD COLUMN signal text")
    op.execute("DROP TRIGGER stages_legal_step ON stages")
    legal = ", ".join(
        f"('{before}', '{after}')" for before, afters in _STEPS.items() for after in afters.split()
    )
    op.execute(
        "CREATE TRIGGER stages_legal_step BEFORE UPDATE OF state ON stages FOR EACH ROW "
        f"WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN ({legal})) "
        "EXECUTE FUNCTION refuse_step()"
    )
