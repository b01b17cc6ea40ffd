"""From a request's parts to the message of its RPC: path, query, body and headers.

Everything that the route tells beforehand is worked out when the reader is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import empty_pb2, message_factory
from google.protobuf.descriptor import Descriptor
from headrace_chassis.channels import Metadata, call_metadata
from headrace_chassis.errors import InvalidRequest, Problem
from headrace_chassis.identity import Principal

from headrace_gateway.codec.compile_decode import Decoder, DecoderCompiler
from headrace_gateway.codec.compile_encode import EncoderCompiler
from headrace_gateway.codec.fields import is_json_text
from headrace_gateway.codec.findings import Findings
from headrace_gateway.codec.parameters import QueryDecoder, Setter, path_setter
from headrace_gateway.routes import Route, scalar_field

from .bodies import BodyReader
from .conditions import expected_version
from .exchange import Request
from .failures import EntityTagMismatch, refused

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
"""An Idempotency-Key, whose rule is the services'. It is checked here too because gRPC cannot carry other
text."""

METADATA_PREFIX: Final = "http-"
"""What the names of metadata begin with that are headers of HTTP."""

_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{0,4096}")
"""A header that travels on as metadata: gRPC carries no other text."""


class Codecs:
    """The compilers of one gateway."""

    def __init__(self) -> None:
        self.encoders = EncoderCompiler()
        self.decoders = DecoderCompiler()


class RequestReader:
    """Reads the requests of one route."""

    def __init__(self, route: Route, decoders: DecoderCompiler, bodies: BodyReader) -> None:
        rpc = route.rpc
        self._if_match_field = route.if_match_field
        self._request_type: Callable[[], Any] = message_factory.GetMessageClass(rpc.input_type)
        self._path_setters = [_path_setter(rpc.input_type, v.field_path) for v in route.template.variables]
        self._decode_body = _body_decoder(route, decoders)
        self._exact = _holds_json(rpc.input_type, set())
        body_fields = {route.body} if route.body not in ("", "*") else set()
        bound = route.template.fields | body_fields
        # Where the body gives all that the path leaves, nothing is left for a query.
        asked = rpc.input_type if route.query_allowed else empty_pb2.Empty.DESCRIPTOR
        self._query = QueryDecoder(asked, frozenset(bound))
        self._bodies = bodies
        self._carried = [
            (name.encode("ascii"), METADATA_PREFIX + name, name) for name in route.request_headers
        ]

    async def message(self, request: Request, values: list[str]) -> Any:
        """Returns the RPC's request; `values` are the texts of the path's variables.

        Raises HeadraceError with all problems that were found, and ClientGoneError.
        """
        message = self._request_type()
        found = Findings()
        for setter, value in zip(self._path_setters, values, strict=True):
            setter(message, [value], found)
        if request.query:
            self._query.decode(request.query, message, found)
        if self._decode_body is not None:
            self._decode_body(await self._bodies.read(request, self._exact), message, "", found)
        if found:
            raise refused(found.problems, found.unknown)
        self._expect_version(request, message)
        return message

    def _expect_version(self, request: Request, message: Any) -> None:
        if_match = request.header(b"if-match")
        if if_match is None or request.method in ("GET", "HEAD"):
            return
        version = expected_version(if_match)
        if version is None:
            return
        if not self._if_match_field:
            raise EntityTagMismatch(if_match)
        setattr(message, self._if_match_field, version)

    def metadata(self, request: Request, principal: Principal) -> Metadata:
        """Returns what goes with the call: the caller's token, the idempotency key of a write, and the
        headers that the contract asks for.

        Raises InvalidRequest for text that gRPC cannot carry.
        """
        key = None if request.method in ("GET", "HEAD") else request.header(b"idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            message = "1 to 255 printable ASCII characters without spaces are expected"
            raise InvalidRequest([Problem("INVALID_FORMAT", "Idempotency-Key", message)])
        metadata = call_metadata(principal.token, idempotency_key=key)
        return metadata + self._headers(request) if self._carried else metadata

    def _headers(self, request: Request) -> Metadata:
        given = [(key, request.header(header), name) for header, key, name in self._carried]
        for _, value, name in given:
            if value is not None and not _PRINTABLE.fullmatch(value):
                message = "at most 4096 printable ASCII characters are expected"
                raise InvalidRequest([Problem("INVALID_FORMAT", name, message)])
        return tuple((key, value) for key, value, _ in given if value is not None)


def _path_setter(message: Descriptor, field_path: str) -> Setter:
    chain = scalar_field(message, field_path)
    if chain is None:
        raise ValueError(f"{field_path} is no single scalar of {message.full_name}")
    return path_setter(chain)


def _body_decoder(route: Route, decoders: DecoderCompiler) -> Decoder | None:
    if not route.body:
        return None
    if route.body == "*":
        bound = frozenset(name for name in route.template.fields if "." not in name)
        return decoders.decoder(route.rpc.input_type, bound)
    return decoders.field_decoder(route.rpc.input_type.fields_by_name[route.body])


def _holds_json(message: Descriptor, seen: set[str]) -> bool:
    """Tells whether a message, or one inside it, keeps raw JSON or a decimal, whose digits must survive."""
    if message.full_name in seen:
        return False
    seen.add(message.full_name)
    return any(
        is_json_text(field) or (field.message_type is not None and _holds_json(field.message_type, seen))
        for field in message.fields
    )
