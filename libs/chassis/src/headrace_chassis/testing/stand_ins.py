"""Other services as a test has them: objects that have those RPCs of a contract which the test is about."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from headrace_chassis.errors import NotImplementedHere
from headrace_chassis.server import Service


def stand_in(contract: ServiceDescriptor, implementation: object) -> Service:
    """Returns what a server needs to serve a stand-in, whose RPCs are its async methods of the same names.

    RPCs that it does not have answer that they are not part of this installation, so that a contract may grow
    without the stand-ins of other services' tests. It need not know the generated servicer therefore, whose
    type demands all of them.
    """
    generated = import_module(contract.file.name.removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
    rpcs = {rpc.name: getattr(implementation, rpc.name, _absent) for rpc in contract.methods}
    return contract, getattr(generated, f"add_{contract.name}Servicer_to_server"), SimpleNamespace(**rpcs)


async def _absent(request: Any, context: Any) -> Any:
    raise NotImplementedHere("this RPC of a stand-in")
