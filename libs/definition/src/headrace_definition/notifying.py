"""Where notifications may go, and how they name secrets."""

import re
from urllib.parse import urlsplit

REFERENCE_PATTERN = r"^\$\{secrets\.[A-Za-z_][A-Za-z0-9_.-]{0,199}\}$"
"""A reference to a secret that stands for a whole value: no text around it could send a part elsewhere."""

_SECRET = re.compile(REFERENCE_PATTERN)
_SCHEMES = ("https://", "http://")


def secret_name(text: str) -> str | None:
    """The name in `${secrets.name}`, where the text is that and nothing else."""
    return text[len("${secrets.") : -1] if _SECRET.fullmatch(text) else None


def target_flaw(kind: str, target: str) -> str | None:
    """Why nothing of this kind (WEBHOOK, EMAIL, SLACK) can go there; None where it can."""
    if not target.isprintable():
        return "must have printable characters only"
    if kind == "EMAIL":
        user, at, host = target.rpartition("@")
        is_address = bool(user and at and host) and not re.search(r"[\s,;:<>()\[\]\"]", target)
        return None if is_address and "@" not in user else "must be one mail address: name@example.com"
    if target.startswith(_SCHEMES) and "${" not in target:
        if "@" in target.partition("://")[2].partition("/")[0]:
            return "must not hold a user or password; write the whole URL as a secret: ${secrets.name}"
        return None if _is_url(target) else "must be a URL with a host, a port that exists, and no spaces"
    if secret_name(target) is not None:
        return None
    return "must be an https:// or http:// URL, or all of it a secret: ${secrets.name}"


def _is_url(target: str) -> bool:
    try:
        parts = urlsplit(target)
        return bool(parts.hostname) and parts.port != 0 and " " not in target
    except ValueError:  # what is no port, or an address in brackets that is none
        return False
