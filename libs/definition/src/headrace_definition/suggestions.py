"""The nearest valid word, for "did you mean"."""

from collections.abc import Iterable
from difflib import get_close_matches

# difflib is quadratic in the length of words, and both sides may come from the user.
_MAX_WORD = 64
_MAX_CANDIDATES = 500


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` was probably meant to be, or None where none is near.

    Case, hyphens and underscores are ignored in comparing, so that `maxRetries` finds `max_retries`.
    """
    if not 0 < len(word) <= _MAX_WORD:
        return None
    folded: dict[str, str] = {}
    for index, candidate in enumerate(candidates):
        if index >= _MAX_CANDIDATES:
            break
        if len(candidate) <= _MAX_WORD:
            folded.setdefault(_fold(candidate), candidate)
    matches = get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def _fold(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
