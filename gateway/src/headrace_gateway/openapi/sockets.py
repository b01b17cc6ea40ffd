"""WebSockets in the OpenAPI document, which knows only requests and answers: the opening request, and what
travels afterwards in `x-websocket`."""

from __future__ import annotations

from typing import Any, Final

from headrace_gateway.socket_routes import SocketRoute
from headrace_gateway.sockets.closing import CODES
from headrace_gateway.sockets.credentials import TICKET

from .schemas import Schema

_HOW: Final = (
    "A WebSocket (RFC 6455): each message is one text frame of JSON. A client that reads slowly gets the "
    "newest state and misses those between; what it sends is ignored. Say who you are by "
    "`Authorization: Bearer …`, or, where a script cannot set headers, by the subprotocols `bearer` and the "
    "token (`Sec-WebSocket-Protocol: bearer, <token>`); a token in the address is not looked at. "
    "Refusals are problem documents before the upgrade."
)


_TICKET: Final[Schema] = {
    "name": TICKET,
    "in": "query",
    "description": "A one-time ticket, instead of a token.",
    "schema": {"type": "string"},
}


def socket_operation(operation: dict[str, Any], socket: SocketRoute, message: Schema) -> dict[str, Any]:
    """Returns the operation of a WebSocket, from that of its opening request; `message` is the schema of what
    is sent."""
    responses = {code: told for code, told in operation["responses"].items() if code != "101"}
    upgraded = {
        "description": "The connection is a WebSocket from here on.",
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
    }
    refused = {"description": "The request did not ask for an upgrade to a WebSocket."}
    parameters = [*operation.get("parameters", []), *([_TICKET] if socket.ticket_rpc is not None else [])]
    return {
        **operation,
        "parameters": parameters,
        "operationId": socket.operation_id,
        "description": f"{operation['description']}\n\n{_HOW}",
        "responses": {"101": upgraded, **responses, "426": refused},
        "x-websocket": {
            "subprotocol": "bearer",
            "message": message,
            "closeCodes": {str(closing.code): meaning for closing, meaning in CODES},
        },
    }
