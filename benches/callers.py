"""Several callers: the gateway admits a thousand requests a second of each, and benches ask for more."""

from datetime import timedelta
from pathlib import Path

from headrace_local.credentials import ensure_credentials
from headrace_local.home import Home
from headrace_local.tokens import mint

CALLERS = 16


def tokens(home: Path) -> list[str]:
    """Tokens of that many editors of the stack at `home`."""
    credentials = ensure_credentials(Home(home))
    return [
        mint(credentials, role="editor", subject=f"bench-{number}", lifetime=timedelta(hours=1))
        for number in range(CALLERS)
    ]
