"""The values of a run's variables: only names that its definition refers to as `${env.NAME}`, or that its
workspace allows every run.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import grpc
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.channels import service_metadata
from headrace_chassis.errors import InvalidParameters, Problem, from_rpc_error
from headrace_chassis.identity import ServiceTokens
from headrace_definition.plan import Plan
from headrace_definition.substitution import references
from headrace_definition.suggestions import nearest

if TYPE_CHECKING:
    from headrace.metadata.v1 import definitions_pb2_grpc

TIMEOUT_SECONDS = 10.0


class VariableChecker:
    """Checks what runs are given. It asks for the workspace where a name is none of the definition's, and
    only then."""

    def __init__(
        self, stub: "definitions_pb2_grpc.DefinitionServiceAsyncStub", tokens: ServiceTokens
    ) -> None:
        self._stub = stub
        self._tokens = tokens

    async def check(
        self, plan: Plan, given: bytes, *, tenant: UUID, workspace: UUID, on_behalf_of: str
    ) -> bytes | None:
        """The values as texts, as a JSON object; None where none are given.

        Raises:
            InvalidParameters: naming everything that does not fit. Values are not repeated.
            Unavailable: when metadata is away.
        """
        if given in (b"", b"{}"):
            return None
        values = _object(given)
        known = references(plan.model_dump_json(), "env")
        if not values.keys() <= known:
            known |= await self._allowed(tenant, workspace, on_behalf_of)
        flaws = [_flaw(name, value, known) for name, value in values.items()]
        problems = [flaw for flaw in flaws if flaw is not None]
        if problems:
            raise InvalidParameters(problems)
        texts = {name: each if isinstance(each, str) else json.dumps(each) for name, each in values.items()}
        return json.dumps(texts, separators=(",", ":"), sort_keys=True).encode()

    async def _allowed(self, tenant: UUID, workspace: UUID, on_behalf_of: str) -> frozenset[str]:
        request = definitions_pb2.BatchGetWorkspacesRequest(ids=[str(workspace)])
        metadata = service_metadata(self._tokens, tenant, on_behalf_of)
        try:
            answer = await self._stub.BatchGetWorkspaces(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return frozenset(name for found in answer.workspaces for name in found.allowed_variables)


def _object(given: bytes) -> Mapping[str, object]:
    try:
        # Numbers as they are written: no digit is lost.
        values = json.loads(given, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        problem = Problem("INVALID_VARIABLES", "variables", "a JSON object of values by name was expected")
        raise InvalidParameters([problem])
    return values


def _flaw(name: str, value: object, known: frozenset[str]) -> Problem | None:
    path = f"variables.{name}"
    if name not in known:
        message = f"the definition does not refer to ${{env.{name}}}, and the workspace does not allow it"
        return Problem("UNKNOWN_VARIABLE", path, message, suggestion=nearest(name, known))
    if not isinstance(value, str | bool):
        return Problem("INVALID_VALUE", path, "a text, a number or a boolean was expected")
    return None
