"""Where pages of lists go on whose newest items come first."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from headrace_chassis.paging import SortValue


def place_of(values: Sequence[SortValue] | None) -> tuple[datetime, UUID] | None:
    """The time and id of the item before a page, as its cursor has told them; None at the beginning."""
    match values:
        case (datetime() as at, UUID() as identity):
            return at, identity
        case _:
            return None
