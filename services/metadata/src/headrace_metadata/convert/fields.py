"""What messages of all kinds have in common."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import reasons_pb2
from headrace_chassis.errors import InvalidRequest, Problem
from headrace_definition import Problem as Finding

from headrace_metadata.errors import told


def optional_id(text: str) -> UUID | None:
    """The id in a field that may be left empty."""
    return UUID(text) if text else None


def moment(value: datetime | None) -> Timestamp | None:
    """A point in time as a message."""
    if value is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def problem_messages(problems: Iterable[Finding]) -> list[reasons_pb2.Problem]:
    """Findings of definitions and settings as messages."""
    return [problem.to_proto() for problem in told(problems)]


def id_text(identity: UUID | None) -> str | None:
    """An id as a message has it."""
    return None if identity is None else str(identity)


def cleared(request: Message, names: Iterable[str], clearable: frozenset[str]) -> frozenset[str]:
    """The fields to clear, which arrive by their JSON names, by their names in the domain."""
    by_json = {field.json_name: field.name for field in request.DESCRIPTOR.fields}
    found = set()
    problems = []
    for name in names:
        field = by_json.get(name, name)
        if field in clearable:
            found.add(field)
        else:
            problems.append(
                Problem("NOT_CLEARABLE", name, "must not be null; leave it out to keep its value")
            )
    if problems:
        raise InvalidRequest(problems)
    return frozenset(found)
