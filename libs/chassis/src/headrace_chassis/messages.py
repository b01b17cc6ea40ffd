"""What conversions between messages and domains have in common."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import overload
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace_chassis.errors import InvalidRequest, Problem


@overload
def timestamp(moment: datetime) -> Timestamp: ...
@overload
def timestamp(moment: datetime | None) -> Timestamp | None: ...
def timestamp(moment: datetime | None) -> Timestamp | None:
    """Returns an instant as protobuf has it; None stays None, which leaves the field unset."""
    if moment is None:
        return None
    value = Timestamp()
    value.FromDatetime(moment)
    return value


def optional_id(text: str) -> UUID | None:
    """Returns the id in a field that may be left empty."""
    return UUID(text) if text else None


def cleared(
    request: Message,
    names: Iterable[str],
    clearable: Collection[str],
    renamed: Mapping[str, str] | None = None,
) -> frozenset[str]:
    """Returns the fields to clear, which arrive by their JSON names, by their names in the domain.

    `clearable` has the names of the domain; `renamed` maps those of the message to them where they differ.

    Raises:
        InvalidRequest: some must not be cleared, with the name of each.
    """
    fields = {field.json_name: field.name for field in request.DESCRIPTOR.fields}
    known = {name: (renamed or {}).get(fields.get(name, name), fields.get(name, name)) for name in names}
    problems = [
        Problem("NOT_CLEARABLE", name, "must not be null; leave it out to keep its value")
        for name, field in known.items()
        if field not in clearable
    ]
    if problems:
        raise InvalidRequest(problems)
    return frozenset(known.values())
