"""What a connection holds, and which fields and options each kind of system takes."""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Any
from uuid import UUID

from headrace_definition import Problem


class ConnectionType(StrEnum):
    """The kind of system behind a connection."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"
    DUCKDB = "duckdb"
    FILE = "file"
    SECRET = "secret"  # noqa: S105 - the word for it: a secret alone, for notifications


@dataclass(frozen=True)
class Endpoint:
    """Where a connection points and as whom; everything but its secret."""

    type: ConnectionType
    host: str | None = None
    port: int | None = None
    database: str | None = None
    username: str | None = None
    path: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def leads_elsewhere(self, before: "Endpoint") -> bool:
        """Whether a secret given for `before` might be sent somewhere else by this."""
        return (self.type, self.host, self.port, self.path, dict(self.options)) != (
            before.type,
            before.host,
            before.port,
            before.path,
            dict(before.options),
        )


@dataclass(frozen=True)
class Connection:
    """A connection without its secret. Equality of two is equality of all that a user may write."""

    id: UUID
    tenant: UUID
    workspace_id: UUID
    name: str
    description: str | None
    endpoint: Endpoint
    secret_ref: str | None
    has_secret: bool
    created_by: str
    created_at: datetime | None = None
    updated_at: datetime | None = None
    max_concurrent_stages: int | None = None
    """How many stages of runs may use it at once; None means any number."""

    @property
    def has_credentials(self) -> bool:
        """Whether it holds a secret or a reference to one."""
        return self.has_secret or self.secret_ref is not None


@dataclass(frozen=True)
class NamedConnection:
    """A connection as a run needs to know of it, by a word that names it."""

    type: str
    id: UUID | None = None
    """Known only of one that has a limit."""
    max_concurrent_stages: int | None = None


@dataclass(frozen=True)
class ConnectionChange:
    """What an update asks for. `secret` is new text to store, `fields` the endpoint's fields given anew."""

    name: str | None = None
    description: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    secret: str | None = field(default=None, repr=False)
    secret_ref: str | None = None
    max_concurrent_stages: int | None = None
    cleared: frozenset[str] = frozenset()

    @property
    def touches_secret(self) -> bool:
        """Whether it gives or takes away a secret or a reference, which is an admin's right."""
        return (
            self.secret is not None
            or self.secret_ref is not None
            or bool(self.cleared & {"secret", "secret_ref"})
        )

    def endpoint_after(self, before: Endpoint) -> Endpoint:
        """The endpoint with the given fields replaced and the cleared ones without value."""
        cleared: dict[str, Any] = {
            name: {} if name == "options" else None for name in self.cleared if name in _ENDPOINT_FIELDS
        }
        return replace(before, **{**cleared, **self.fields})


@dataclass(frozen=True)
class _Rules:
    required: tuple[str, ...]
    optional: tuple[str, ...]
    options: Mapping[str, Callable[[str], str | None]]
    takes_secret: bool
    needs_secret: bool = False


def _one_of(*words: str) -> Callable[[str], str | None]:
    return lambda value: None if value in words else f"must be one of {', '.join(words)}"


def _seconds(value: str) -> str | None:
    if value.isascii() and value.isdigit() and 1 <= int(value) <= 300:
        return None
    return "must be a whole number of seconds from 1 to 300"


def _text(value: str) -> str | None:
    return None if value and value.isprintable() else "must be printable text and not be empty"


_POSTGRESQL_OPTIONS: Mapping[str, Callable[[str], str | None]] = {
    "sslmode": _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslrootcert": _text,
    "application_name": _text,
    "connect_timeout": _seconds,
    "search_path": _text,
    "ledger_schema": _text,
}

# The options are those that the connectors know; the driver's others (service, passfile, options …) could
# lead it past the checks of host and secret.
_RULES: Mapping[ConnectionType, _Rules] = {
    ConnectionType.POSTGRESQL: _Rules(
        ("host", "database", "username"), ("port",), _POSTGRESQL_OPTIONS, takes_secret=True
    ),
    ConnectionType.SQLITE: _Rules(("path",), (), {}, takes_secret=False),
    ConnectionType.DUCKDB: _Rules(("path",), (), {}, takes_secret=False),
    ConnectionType.FILE: _Rules(("path",), (), {}, takes_secret=False),
    ConnectionType.SECRET: _Rules((), (), {}, takes_secret=True, needs_secret=True),
}
_ENDPOINT_FIELDS = ("type", "host", "port", "database", "username", "path", "options")
_CREDENTIAL = re.compile(
    r"pass(word|wd|phrase|file)?$|secret|token|credential|api_?key|private_?key|sslkey", re.I
)
_USERINFO = re.compile(r"://[^/\s]*:[^/\s]*@")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def endpoint_problems(endpoint: Endpoint, *, credentials: bool) -> list[Problem]:
    """All that is wrong with an endpoint; `credentials` says whether a secret or a reference goes with it."""
    rules = _RULES[endpoint.type]
    problems = [
        Problem("REQUIRED", name, f"a connection of type {endpoint.type.upper()} needs it")
        for name in rules.required
        if getattr(endpoint, name) is None
    ]
    for name in ("host", "port", "database", "username", "path"):
        value = getattr(endpoint, name)
        if value is None:
            continue
        if name not in rules.required and name not in rules.optional:
            problems.append(
                Problem("NOT_ALLOWED", name, f"a connection of type {endpoint.type.upper()} does not take it")
            )
        elif isinstance(value, str) and (flaw := _field_flaw(name, value)):
            problems.append(Problem("INVALID_VALUE", name, flaw))
    if credentials and not rules.takes_secret:
        problems.append(
            Problem("NOT_ALLOWED", "secret", f"a connection of type {endpoint.type.upper()} has no secret")
        )
    if rules.needs_secret and not credentials:
        problems.append(
            Problem("REQUIRED", "secret", f"a connection of type {endpoint.type.upper()} needs it")
        )
    problems.extend(_option_problems(endpoint.type, rules, endpoint.options))
    return problems


def _field_flaw(name: str, value: str) -> str | None:
    if not value.isprintable():
        return "must have printable characters only"
    if _USERINFO.search(value):
        return "must not hold credentials; give them as username and secret"
    if name == "host" and not _is_host(value):
        return "must be a host name or an IP address, without scheme, port or path"
    return None


def _is_host(value: str) -> bool:
    try:
        ipaddress.ip_address(value.removeprefix("[").removesuffix("]"))
    except ValueError:
        labels = value.removesuffix(".").split(".")
        return all(_HOST_LABEL.fullmatch(label) for label in labels)
    return True


def _option_problems(kind: ConnectionType, rules: _Rules, options: Mapping[str, str]) -> Iterator[Problem]:
    for name, value in options.items():
        path = f"options.{name}"
        if _CREDENTIAL.search(name) or _USERINFO.search(value):
            yield Problem(
                "LITERAL_SECRET",
                path,
                "an option must not hold credentials; give them as secret or secretRef",
            )
        elif name not in rules.options:
            known = ", ".join(rules.options) or "none"
            nearest = get_close_matches(name, rules.options, n=1)
            yield Problem(
                "UNKNOWN_OPTION",
                path,
                f"is no option of type {kind.upper()}; it takes: {known}",
                suggestion=nearest[0] if nearest else None,
            )
        elif flaw := rules.options[name](value):
            yield Problem("INVALID_VALUE", path, flaw)
