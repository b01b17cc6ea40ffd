"""The contracts as data: their services from the generated code, their comments from the descriptor set."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

_PACKAGE: Final = re.compile(r"headrace\.([a-z][a-z0-9_]*)\.v[0-9]+")

# The numbers of FileDescriptorProto's and DescriptorProto's fields, of which the paths of source locations
# are made.
_FILE_MEMBERS: Final = {4: "message_type", 5: "enum_type", 6: "service"}
_MESSAGE_MEMBERS: Final = {2: "field", 3: "nested_type", 4: "enum_type", 8: "oneof_decl"}
_ENUM_MEMBERS: Final = {2: "value"}
_SERVICE_MEMBERS: Final = {2: "method"}


@dataclass(frozen=True)
class Contract:
    """All services that the descriptor set declares, and what its comments say.

    `comments` maps the full name of a message, field, enum, service or method to its comment; an enum's value
    is found under the full name of its enum and its own name, since protobuf puts it beside the enum.
    """

    services: tuple[ServiceDescriptor, ...]
    comments: Mapping[str, str]


def load_contract(descriptor_set: bytes) -> Contract:
    """Returns the contract of a serialized FileDescriptorSet whose files have generated code, or are in the
    pool.

    Raises ImportError where the generated code of a file is missing.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    services: list[ServiceDescriptor] = []
    comments: dict[str, str] = {}
    for file in files.file:
        if not file.service and not file.package.startswith("headrace."):
            continue
        services += _loaded(file.name).services_by_name.values()
        comments.update(_comments(file))
    return Contract(tuple(sorted(services, key=lambda service: service.full_name)), comments)


def owner(service: ServiceDescriptor) -> str | None:
    """Returns the name of the process that serves a service: "metadata" for headrace.metadata.v1."""
    match = _PACKAGE.fullmatch(service.file.package)
    return match[1] if match else None


def _loaded(name: str) -> FileDescriptor:
    """Returns a file from the pool, importing its generated code where it is not there yet."""
    try:
        return descriptor_pool.Default().FindFileByName(name)
    except KeyError:
        importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        return descriptor_pool.Default().FindFileByName(name)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Yields the full names of what has a leading comment, with the comment."""
    for location in file.source_code_info.location:
        text = _text(location.leading_comments)
        if text and len(location.path) >= 2 and len(location.path) % 2 == 0:
            name = _named(file, list(location.path))
            if name is not None:
                yield name, text


def _named(file: descriptor_pb2.FileDescriptorProto, path: list[int]) -> str | None:
    """Returns the full name of what a location's path leads to; None for options and the like."""
    here: object = file
    members: dict[int, str] = _FILE_MEMBERS
    names = [file.package]
    for number, index in zip(path[::2], path[1::2], strict=True):
        if number not in members:
            return None
        member = members[number]
        here = getattr(here, member)[index]
        names.append(str(getattr(here, "name", "")))
        members = {
            "message_type": _MESSAGE_MEMBERS,
            "nested_type": _MESSAGE_MEMBERS,
            "enum_type": _ENUM_MEMBERS,
            "service": _SERVICE_MEMBERS,
        }.get(member, {})
    return ".".join(names)


def _text(comment: str) -> str:
    """Returns a comment as prose: the space that follows // is gone, lines of a paragraph are joined."""
    paragraphs = "\n".join(line.strip() for line in comment.strip().splitlines()).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
