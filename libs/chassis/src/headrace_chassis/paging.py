"""Keyset pages: opaque cursors that are signed, so that nobody can make or alter one."""

import base64
import binascii
import hmac
import json
import uuid
from datetime import datetime
from pathlib import Path

from headrace_chassis import keys
from headrace_chassis.errors import InvalidCursor

DEFAULT_LIMIT = 20
MAXIMUM_LIMIT = 200

SortValue = str | int | float | bool | None | datetime | uuid.UUID

_TAG_BYTES = 16
_MAXIMUM_CURSOR = 4096


class Cursors:
    """Makes and reads the cursors of lists.

    A cursor holds the sort values of a page's last row, the name of its list, and the first 128 bits of an
    HMAC-SHA256 over both. All replicas share the key. A cursor grants nothing: every query still asks for the
    tenant.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> "Cursors":
        """Reads the key from a file; raises ValueError when it is too short."""
        return cls(keys.read_shared("CURSOR_KEY_FILE", path))

    def __repr__(self) -> str:
        return "Cursors()"

    def encode(self, list_name: str, *values: SortValue) -> str:
        """Returns the cursor of a list whose last row has these sort values."""
        payload = json.dumps([_pack(value) for value in values], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._tag(list_name, payload) + payload).rstrip(b"=").decode()

    def decode(self, list_name: str, text: str) -> tuple[SortValue, ...]:
        """Returns the sort values again, in their types; raises InvalidCursor for any text that this list did
        not make."""
        if len(text) > _MAXIMUM_CURSOR:
            raise InvalidCursor
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidCursor from None
        tag, payload = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(list_name, payload)):
            raise InvalidCursor
        return tuple(_unpack(item) for item in json.loads(payload))

    def _tag(self, list_name: str, payload: bytes) -> bytes:
        name = list_name.encode()
        signed = len(name).to_bytes(4, "big") + name + payload
        return hmac.digest(self._key, signed, "sha256")[:_TAG_BYTES]


def page_limit(asked: int) -> int:
    """Returns how many items a page holds: 20 where nothing (0) was asked for, never more than 200."""
    return DEFAULT_LIMIT if asked <= 0 else min(asked, MAXIMUM_LIMIT)


def _pack(value: SortValue) -> object:
    if isinstance(value, datetime):
        return {"t": value.isoformat()}
    if isinstance(value, uuid.UUID):
        return {"u": value.hex}
    return value


def _unpack(item: object) -> SortValue:
    if isinstance(item, dict):
        if "t" in item:
            return datetime.fromisoformat(item["t"])
        return uuid.UUID(hex=item["u"])
    assert item is None or isinstance(item, str | int | float | bool)  # noqa: S101 - it was signed by encode
    return item
