"""Messages without their secrets, for logs: fields whose contract says `secret` are masked, wherever they
are."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from headrace.common.v1 import options_pb2

REDACTED = "***"

_SECRET_WORDS = ("secret", "password", "passwd", "token", "authorization", "credential", "private_key", "dsn")


def is_secret_name(name: str) -> bool:
    """Tells whether a name promises a secret, so that its value is not written."""
    lowered = name.lower()
    return any(word in lowered for word in _SECRET_WORDS)


def redacted(message: Message) -> dict[str, Any]:
    """Returns the given fields of a message by their JSON names, with every secret masked."""
    return {field.json_name: _shown(field, value) for field, value in message.ListFields()}


def _shown(field: FieldDescriptor, value: Any) -> Any:
    rules = field.GetOptions().Extensions[options_pb2.field]
    if rules.secret or rules.shown_once:
        return REDACTED
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {
            str(key): REDACTED if is_secret_name(str(key)) else _shown(inner, value[key]) for key in value
        }
    if field.is_repeated:
        return [_one(field, item) for item in value]
    return _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return redacted(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f"<{len(value)} bytes>"
    return value
