"""Cursors as a receipt or an artifact carries them: of all sources its rows come from, as one value."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping


def pack_cursors(cursors: Mapping[str, bytes]) -> bytes | None:
    """The cursors of all sources that a load read, as one value for its receipt; None where there are
    none.
    """
    if not cursors:
        return None
    texts = {source: base64.b64encode(value).decode() for source, value in cursors.items()}
    return json.dumps(texts, sort_keys=True).encode()


def unpack_cursors(packed: bytes | None) -> dict[str, bytes]:
    """What `pack_cursors` was given."""
    if packed is None:
        return {}
    return {source: base64.b64decode(text) for source, text in json.loads(packed).items()}
