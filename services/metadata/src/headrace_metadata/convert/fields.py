"""What messages of all kinds have in common."""

from collections.abc import Iterable
from uuid import UUID

from headrace.common.v1 import reasons_pb2
from headrace_definition import Problem as Finding

from headrace_metadata.errors import told


def problem_messages(problems: Iterable[Finding]) -> list[reasons_pb2.Problem]:
    """Findings of definitions and settings as messages."""
    return [problem.to_proto() for problem in told(problems)]


def id_text(identity: UUID | None) -> str | None:
    """An id as a message has it."""
    return None if identity is None else str(identity)
