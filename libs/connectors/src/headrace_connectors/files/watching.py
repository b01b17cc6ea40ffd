"""Files that notice something while a parser reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import IO


class Watch(ABC):
    """A file for reading whose every block is looked at on its way."""

    def __init__(self, file: Watch | IO[bytes]) -> None:
        self._file = file

    @property
    def closed(self) -> bool:
        """Whether the file is."""
        return self._file.closed

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the file."""
        block = self._file.read(size)
        self.look(block)
        return block

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @abstractmethod
    def look(self, block: bytes) -> None:
        """Look at the next bytes."""


class HexadecimalWatch(Watch):
    """Notices ``0x`` where a number could begin: the parser would take ``0x1F`` for one."""

    def __init__(self, file: Watch | IO[bytes]) -> None:
        super().__init__(file)
        self._last = b""
        self.seen = False

    def look(self, block: bytes) -> None:
        """Search, until it is found."""
        if not self.seen:
            text = self._last + block
            self.seen = any(_starts(text, mark) for mark in (b"0x", b"0X"))
            self._last = text[-2:]


class QuoteWatch(Watch):
    """Counts quotes: the parser takes what follows the last one for a value, though it is never closed.

    A file whose quotes come in pairs has closed them all.  An odd number is worth a closer look; it may be in
    order, since a quote inside an unquoted field is a character like others.
    """

    def __init__(self, file: Watch | IO[bytes], quote: str) -> None:
        super().__init__(file)
        self._quote = quote.encode()
        self._count = 0

    @property
    def odd(self) -> bool:
        """Whether a quote may have been left open."""
        return self._count % 2 == 1

    def look(self, block: bytes) -> None:
        """Count."""
        self._count += block.count(self._quote)


def _starts(text: bytes, mark: bytes) -> bool:
    """Whether the mark stands somewhere after something else than a letter or digit (as in ``N840XL``)."""
    place = text.find(mark)
    while place >= 0:
        if not text[max(place - 1, 0) : place].isalnum():
            return True
        place = text.find(mark, place + 1)
    return False
