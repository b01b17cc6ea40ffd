"""Conditional requests (RFC 9110, section 13): entity tags are versions, written "3"."""

from __future__ import annotations

import re
from typing import Final

from headrace_chassis.errors import InvalidRequest, Problem

from .failures import EntityTagMismatch

_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_VERSION: Final = re.compile(r"[0-9]{1,9}")


def entity_tag(value: object) -> bytes:
    """Returns the strong entity tag of a version."""
    return f'"{value}"'.encode("ascii")


def expected_version(if_match: str) -> int | None:
    """Returns the version that If-Match names; None for "*", which any version fulfils.

    Raises InvalidRequest for what is no list of entity tags, or names several versions, of which a write can
    expect only one; raises EntityTagMismatch for a tag that no version has: weak ones never match (RFC 9110,
    13.1.1).
    """
    if if_match.strip() == "*":
        return None
    tags = _tags(if_match)
    if tags is None:
        message = 'expected an entity tag such as "3", or *'
        raise InvalidRequest([Problem("INVALID_VALUE", "If-Match", message)])
    if len(tags) > 1:
        raise InvalidRequest([Problem("INVALID_VALUE", "If-Match", "expected one entity tag, got several")])
    weak, tag = tags[0]
    if weak or not _VERSION.fullmatch(tag):
        raise EntityTagMismatch(if_match)
    return int(tag)


def none_match(if_none_match: str, tag: bytes) -> bool:
    """Tells whether the client lacks the representation: its tag is not among those of If-None-Match."""
    if if_none_match.strip() == "*":
        return False
    return all(f'"{known}"'.encode("latin-1") != tag for _, known in _tags(if_none_match) or ())


def _tags(header: str) -> list[tuple[bool, str]] | None:
    """Returns the entity tags of a header as (weak, opaque part), or None where it is no list of them."""
    tags: list[tuple[bool, str]] = []
    for part in header.split(","):
        match = _TAG.fullmatch(part.strip())
        if match is None:
            return None
        tags.append((match[1] is not None, match[2]))
    return tags
