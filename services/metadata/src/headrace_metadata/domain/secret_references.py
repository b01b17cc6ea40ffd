"""References to secrets that are kept elsewhere: which of them a connection may hold.

A reference is read by a worker, with the worker's rights, so what it may point at is the operator's decision.
It is checked here when it is given, and by the worker again when it is used.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_AVAILABLE = {"vault": "HashiCorp Vault", "k8s": "Kubernetes secrets"}
SCHEMES = ("env", "file", *_NOT_AVAILABLE)


class InvalidReference(ValueError):  # noqa: N818 - it names what is the case
    """The reference is malformed, or of a kind that this installation does not have."""


class ForbiddenReference(ValueError):  # noqa: N818 - it names what is the case
    """The reference is well-formed and points at what the operator has not opened to users."""


@dataclass(frozen=True)
class ReferencePolicy:
    """What references may name: environment variables with a prefix, files under roots. Empty means none."""

    env_prefix: str
    file_roots: tuple[PurePosixPath, ...] = ()

    def check(self, reference: str) -> None:
        """Passes when the reference may be used.

        Raises:
            InvalidReference: it is malformed, or names a store that is not available.
            ForbiddenReference: it names a variable without the prefix, or a file outside the roots.
        """
        scheme, separator, rest = reference.partition("://")
        if not separator:
            raise InvalidReference('must be a reference such as "env://NAME" or "file:///path"')
        if scheme in _NOT_AVAILABLE:
            raise InvalidReference(
                f"{_NOT_AVAILABLE[scheme]} ({scheme}://) is not available in this installation; "
                "use env://, file:// or a secret stored here"
            )
        if scheme == "env":
            self._check_variable(rest)
        elif scheme == "file":
            self._check_file(rest)
        else:
            raise InvalidReference("must begin with env:// or file://")

    def _check_variable(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidReference("env:// must be followed by the name of an environment variable")
        if not self.env_prefix:
            raise ForbiddenReference("the operator allows no environment variables")
        if not name.startswith(self.env_prefix) or name == self.env_prefix:
            raise ForbiddenReference(f"names of environment variables must begin with {self.env_prefix}")

    def _check_file(self, text: str) -> None:
        path = PurePosixPath(text)
        if not path.is_absolute() or "\x00" in text:
            raise InvalidReference("file:// must be followed by an absolute path: file:///path")
        if ".." in path.parts:
            raise ForbiddenReference("the path must not lead upwards with ..")
        if not any(path != root and path.is_relative_to(root) for root in self.file_roots):
            raise ForbiddenReference("the path is under none of the folders that the operator allows")


def looks_like_reference(secret: str) -> bool:
    """Whether a text given as a secret is a reference in the wrong field."""
    return secret.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))
