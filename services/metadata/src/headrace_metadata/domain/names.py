"""Names of pipelines, connections and workspaces, and the slugs made from them."""

import re
import unicodedata
from collections.abc import Iterator
from uuid import UUID

MAX_NAME_LENGTH = 200
_MAX_SLUG_LENGTH = 48
# Latin letters that have no decomposition into an ASCII letter and a mark.
_PLAIN_LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ß": "ss", "æ": "ae", "œ": "oe", "þ": "th"}
)
_NOT_SLUG = re.compile(r"[^a-z0-9]+")


def normalise_name(name: str) -> str:
    """The composed form (NFC) of a name, so that two spellings of the same letters are one name."""
    return unicodedata.normalize("NFC", name)


def name_flaw(name: str) -> str | None:
    """What is wrong with a normalised name, or None.

    A name has 1 to 200 printable characters and neither starts nor ends with a space; its case counts.
    """
    if not name:
        return "must not be empty"
    if len(name) > MAX_NAME_LENGTH:
        return f"must have at most {MAX_NAME_LENGTH} characters, not {len(name)}"
    for position, character in enumerate(name, start=1):
        if not character.isprintable():
            return (
                "must have printable characters only; "
                f"character {position} is U+{ord(character):04X} ({unicodedata.name(character, 'unnamed')})"
            )
    if name != name.strip():
        return "must neither start nor end with a space"
    return None


def slug_of(name: str) -> str:
    """The name in lower-case ASCII letters, digits and single hyphens, for file names and identifiers."""
    lowered = unicodedata.normalize("NFKD", name.lower()).translate(_PLAIN_LETTERS)
    plain = lowered.encode("ascii", "ignore").decode().lower()
    return _NOT_SLUG.sub("-", plain).strip("-")[:_MAX_SLUG_LENGTH].strip("-") or "pipeline"


def slug_candidates(name: str, identity: UUID) -> Iterator[str]:
    """Slugs to try in turn, until one is free.

    The second and third end in random digits of the id: unlike counting up, that costs the same whatever
    number of pipelines share the first.
    """
    slug = slug_of(name)
    yield slug
    yield f"{slug}-{identity.hex[-6:]}"
    yield f"{slug}-{identity.hex[-12:]}"


def copy_names(name: str) -> Iterator[str]:
    """Names for a copy, in the order in which they are tried: "x (copy)", "x (copy 2)", …

    Endless; the original is shortened where the whole would be too long.
    """
    number = 1
    while True:
        suffix = " (copy)" if number == 1 else f" (copy {number})"
        yield name[: MAX_NAME_LENGTH - len(suffix)].rstrip() + suffix
        number += 1
