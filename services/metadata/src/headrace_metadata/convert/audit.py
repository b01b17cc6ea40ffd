"""The audit trail."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from headrace.metadata.v1 import audit_pb2
from headrace_chassis.messages import optional_id, timestamp

from headrace_metadata.convert.fields import id_text
from headrace_metadata.domain.audit import AuditEvent
from headrace_metadata.store.audit import Filters


def filters(request: audit_pb2.ListAuditEventsRequest) -> Filters:
    """What a list is narrowed by."""
    return Filters(
        actor=request.actor,
        action=request.action,
        object_type=request.object_type,
        object_id=optional_id(request.object_id),
        since=_time(request.since) if request.HasField("since") else None,
        until=_time(request.until) if request.HasField("until") else None,
    )


def event_message(event: AuditEvent) -> audit_pb2.AuditEvent:
    """An event."""
    deed = event.deed
    return audit_pb2.AuditEvent(
        sequence=event.sequence,
        at=timestamp(event.at),
        actor=deed.actor,
        via=deed.via,
        action=deed.action,
        object_type=deed.object_type,
        object_id=str(deed.object_id),
        object_name=deed.object_name,
        workspace_id=id_text(deed.workspace_id),
        request_id=deed.request_id,
        fields=deed.fields,
        hash=event.hash.hex(),
        previous_hash=event.previous_hash.hex(),
    )


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
