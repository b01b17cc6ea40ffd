"""What texts of any content must not hold."""

from collections.abc import Iterator, Mapping

from headrace_definition import Problem


def nul_problems(texts: Mapping[str, str | None]) -> Iterator[Problem]:
    """The texts, by their places, that hold U+0000: PostgreSQL has no text with it (manual, 8.3)."""
    for path, text in texts.items():
        if text is not None and "\0" in text:
            yield Problem("INVALID_CHARACTER", path, "must not hold the character U+0000")
