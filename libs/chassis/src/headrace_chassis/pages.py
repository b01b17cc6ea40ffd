"""Pages of lists: where they begin, and what they say of the next."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from headrace.common.v1 import paging_pb2

from headrace_chassis.errors import InvalidCursor, InvalidRequest, Problem
from headrace_chassis.paging import Cursors, SortValue, page_limit

T = TypeVar("T")


class _Asked(Protocol):
    @property
    def limit(self) -> int: ...
    @property
    def cursor(self) -> str: ...


class Pages(Generic[T]):
    """The pages of one list. `key` gives the sort values of an item; `kinds` are their types."""

    def __init__(
        self,
        cursors: Cursors,
        name: str,
        kinds: Sequence[type],
        key: Callable[[T], tuple[SortValue, ...]],
    ) -> None:
        self._cursors = cursors
        self._name = name
        self._kinds = tuple(kinds)
        self._key = key

    def begin(self, request: _Asked, offset: int = 0) -> tuple[int, tuple[SortValue, ...] | None]:
        """How many items the page holds, and the sort values of the item before it; None at the beginning.

        Raises:
            InvalidCursor: the cursor is not of this list.
            InvalidRequest: cursor and offset are both given.
        """
        limit = page_limit(request.limit)
        if not request.cursor:
            return limit, None
        if offset:
            raise InvalidRequest([Problem("NOT_ALLOWED", "offset", "give either a cursor or an offset")])
        values = self._cursors.decode(self._name, request.cursor)
        if tuple(type(value) for value in values) != self._kinds:
            raise InvalidCursor
        return limit, values

    def end(
        self, found: Sequence[T], limit: int, total: int | None
    ) -> tuple[Sequence[T], paging_pb2.ListMeta]:
        """The items of the page, of which one more than `limit` was looked for, and what the page says of
        itself."""
        items = found[:limit]
        meta = paging_pb2.ListMeta(limit=limit, total=total)
        if len(found) > limit:
            meta.next_cursor = self._cursors.encode(self._name, *self._key(items[-1]))
        return items, meta
