"""Keys of artifacts: whose they are comes first, so that all of a run or pipeline go by one prefix."""

from __future__ import annotations

import re
import secrets
from uuid import UUID

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_LONGEST = 900
"""S3 allows 1024 bytes; the prefix of the store's URL comes before."""

LOGS = "logs"
OUTPUTS = "outputs"


def pipeline_prefix(tenant: UUID, pipeline: UUID) -> str:
    """What all artifacts of a pipeline begin with."""
    return f"{tenant}/{pipeline}"


def run_prefix(tenant: UUID, pipeline: UUID, run: UUID) -> str:
    """What all artifacts of a run begin with."""
    return f"{pipeline_prefix(tenant, pipeline)}/{run}"


def new_key(prefix: str, kind: str, name: str, ending: str) -> str:
    """A key that nobody can guess who knows the run: its last part holds 128 random bits."""
    return check_key(f"{prefix}/{kind}/{name}-{secrets.token_hex(16)}.{ending}")


def check_key(key: str) -> str:
    """The key itself.

    Raises:
        ValueError: when it is no path of plain names, which alone every store can hold.
    """
    if len(key) > _LONGEST or not all(_SEGMENT.fullmatch(part) for part in key.split("/")):
        raise ValueError(f"{key!r} is no key of an artifact")
    return key
