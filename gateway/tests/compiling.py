"""Contracts of the tests' own, compiled as `make generate` compiles ours, and made known to the pool."""

import importlib
import importlib.resources
from pathlib import Path

from google.api import http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc

_HERE = Path(__file__).parent
_PROTOS = _HERE.parents[1] / "protos"
_IMPORTS = (
    "google.protobuf.duration_pb2",
    "google.protobuf.field_mask_pb2",
    "google.protobuf.struct_pb2",
    "google.protobuf.wrappers_pb2",
    "google.api.httpbody_pb2",
)


def compiled(proto: str, package: str, out: Path) -> bytes:
    """Returns the descriptor set of a file beside this one, with its comments; `out` is written to."""
    includes = [
        _HERE,
        _PROTOS,
        importlib.resources.files("grpc_tools") / "_proto",
        Path(http_pb2.__file__).parents[2],
    ]
    arguments = [f"-I{folder}" for folder in includes]
    arguments += [f"--descriptor_set_out={out}", "--include_imports", "--include_source_info", proto]
    assert protoc.main(["protoc", *arguments]) == 0
    for module in _IMPORTS:
        importlib.import_module(module)
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        if file.package == package:
            file.ClearField("source_code_info")
            descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return out.read_bytes()
