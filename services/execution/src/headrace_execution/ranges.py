"""Which bytes to send of a file that never changes: conditions and ranges of HTTP (RFC 9110, 13 and 14)."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Selection:
    """What to answer: 200 with all, 206 with a part, 304 or 416 with nothing."""

    status: int
    start: int
    length: int

    def content_range(self, size: int) -> str | None:
        """The value of Content-Range, where the answer has one."""
        if self.status == 206:
            return f"bytes {self.start}-{self.start + self.length - 1}/{size}"
        return f"bytes */{size}" if self.status == 416 else None


def select(size: int, tag: str, *, none_match: str = "", wanted: str = "", if_range: str = "") -> Selection:
    """What to answer. `tag` is the file's entity tag, in its quotes.

    A range that is no single range of bytes is ignored, as the standard allows, and so is one for a file of
    another tag.
    """
    if none_match.strip() == "*" or tag in _TAG.findall(none_match):
        return Selection(304, 0, 0)
    whole = Selection(200, 0, size)
    found = _RANGE.fullmatch(wanted)
    if found is None or (if_range and if_range.strip() != tag):
        return whole
    first, last, suffix = found.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        return Selection(206, size - length, length) if length else Selection(416, 0, 0)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return whole
    return Selection(206, start, end - start + 1) if start < size else Selection(416, 0, 0)
