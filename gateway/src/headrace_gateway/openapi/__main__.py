"""Prints the OpenAPI document of all contracts in YAML: `python -m headrace_gateway.openapi`."""

import sys

import headrace

from headrace_gateway.contract import load_contract
from headrace_gateway.routes import routes_of
from headrace_gateway.socket_routes import sockets_of

from .document import openapi_document
from .text import as_yaml


def main() -> None:
    """Prints the document to standard output."""
    contract = load_contract(headrace.descriptor_set())
    document = openapi_document(routes_of(contract), sockets_of(contract), contract.comments)
    sys.stdout.buffer.write(as_yaml(document))


if __name__ == "__main__":
    main()
