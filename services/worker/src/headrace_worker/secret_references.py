"""Secrets that connections only refer to: `env://NAME` and `file:///path`, within what the operator
allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LARGEST_FILE = 65536


class SecretUnavailable(Exception):  # noqa: N818 - what it is, and how it reads where it is caught
    """A reference cannot be resolved; the message says why and holds nothing of any secret."""


class SecretReferences:
    """Resolves references at the last moment, in the worker that needs them.

    `prefix` is what names of variables must begin with; `roots` are the folders that files must lie in.
    """

    def __init__(self, environment: Mapping[str, str], *, prefix: str, roots: Sequence[Path]) -> None:
        self._environment = environment
        self._prefix = prefix
        self._roots = tuple(root.resolve() for root in roots)

    def resolve(self, reference: str) -> str:
        """The secret that a reference stands for. Raises SecretUnavailable."""
        scheme, separator, rest = reference.partition("://")
        if scheme == "env" and separator:
            return self._variable(rest)
        if scheme == "file" and separator:
            return self._file(reference)
        raise SecretUnavailable("the secret reference is neither env://NAME nor file:///path")

    def _variable(self, name: str) -> str:
        if not self._prefix or not name.startswith(self._prefix):
            raise SecretUnavailable(
                f"env://{name}: the operator allows only names that begin with {self._prefix}"
            )
        value = self._environment.get(name)
        if not value:
            raise SecretUnavailable(f"env://{name}: the worker's environment has no such variable")
        return value

    def _file(self, reference: str) -> str:
        parts = urlsplit(reference)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise SecretUnavailable("a file reference has the form file:///path")
        named = Path(unquote(parts.path))
        try:
            path = named.resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            raise SecretUnavailable(f"file://{named}: the worker has no such file") from None
        if not any(path.is_relative_to(root) for root in self._roots):
            raise SecretUnavailable(f"file://{named}: not within the folders that the operator allows")
        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise SecretUnavailable(f"file://{named}: {error.strerror}") from None
        if len(content) > _LARGEST_FILE:
            raise SecretUnavailable(f"file://{named}: more than {_LARGEST_FILE} bytes")
        try:
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretUnavailable(f"file://{named}: not UTF-8 text") from None
