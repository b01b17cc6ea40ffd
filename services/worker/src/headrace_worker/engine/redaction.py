"""Takes the secrets of an assignment out of every text that leaves its process."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

from headrace_definition.secret_words import without_secrets

_MASK = "***"
_SHORTEST = 4  # a shorter secret is part of ordinary words: masking it would show where it is

_SHORTEST_WITHIN = 8  # a shorter piece of base64 may be a piece of anything


class Redactor:
    """Replaces secrets in any of the forms in which drivers and servers repeat them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= _SHORTEST:
                forms |= _forms(secret)
        # The longest first: a form may be part of another one.
        self._forms = sorted(forms, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without secrets, and without passwords in URLs: an error may quote what a row holds."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MASK)
        return without_secrets(text, _MASK)

    def mapping(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The mapping without secrets in its values."""
        return {name: self.text(value) for name, value in texts.items()}


def _forms(secret: str) -> set[str]:
    encoded = secret.encode("utf-8", "surrogatepass")
    forms = {
        secret,
        quote(secret, safe="", errors="surrogatepass"),
        quote(secret, errors="surrogatepass"),
        quote_plus(secret, errors="surrogatepass"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        secret.replace("'", "''"),
        base64.b64encode(encoded).decode(),
        base64.b64encode(encoded).decode().rstrip("="),
        base64.urlsafe_b64encode(encoded).decode(),
        base64.urlsafe_b64encode(encoded).decode().rstrip("="),
        encoded.hex(),
        *_within_base64(encoded),
    }
    return {form for form in forms if len(form) >= _SHORTEST}


def _within_base64(encoded: bytes) -> set[str]:
    """How a secret looks within the base64 of a longer text, as in an Authorization header: at each of the
    three offsets, the characters that depend on nothing but the secret.
    """
    forms: set[str] = set()
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + encoded).decode()
        first = -(-offset * 8 // 6)  # the first character that holds no bit of what is before
        last = (offset + len(encoded)) * 8 // 6
        inside = text[first:last]
        if len(inside) >= _SHORTEST_WITHIN:
            forms |= {inside, inside.replace("+", "-").replace("/", "_")}
    return forms
