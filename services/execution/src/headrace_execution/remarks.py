"""What callers remark on runs and alerts: kept, and shown to all who may see them."""

from headrace_chassis.errors import InvalidRequest, Problem
from headrace_definition.secret_words import holds_secret


def check_remark(path: str, text: str | None) -> None:
    """Refuses a text that cannot be kept.

    Raises:
        InvalidRequest: it has control characters, or the form of a secret. It is not repeated.
    """
    if text is None:
        return
    if any(ord(character) < 32 and character not in "\t\n\r" for character in text):
        raise InvalidRequest([Problem("INVALID_VALUE", path, "control characters are not accepted")])
    if holds_secret(text):
        problem = Problem("LITERAL_SECRET", path, "it is kept and shown: it cannot hold a secret")
        raise InvalidRequest([problem])
