"""Which store a URL names: a folder, or a bucket of S3 or Google Cloud Storage."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from headrace_artifacts.local import LocalStore
from headrace_artifacts.store import ArtifactStore

SCHEMES = ("file", "s3", "gs")


def check_url(url: str) -> str:
    """The URL of a store itself.

    Raises:
        ValueError: when it names no place where artifacts can be kept.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("a URL with file://, s3:// or gs:// is expected")
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise ValueError("a folder's URL has three slashes and an absolute path: file:///var/lib/headrace")
    if parts.scheme != "file" and not parts.netloc:
        raise ValueError(f"{parts.scheme}:// needs the name of a bucket")
    if parts.username or parts.password:
        raise ValueError("credentials come from the environment, not from the URL")
    return url


def open_store(url: str) -> ArtifactStore:
    """The store that a URL names.

    Raises:
        ValueError: when the URL names none.
        ArtifactError: when it cannot be used.
    """
    parts = urlsplit(check_url(url))
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    # pyarrow's file systems are large, and a folder needs none of them.
    from headrace_artifacts.remote import open_remote

    return open_remote(url)
