"""Generates the Python messages, gRPC stubs, their types and the descriptor set from protos/.

The descriptor set keeps source info, because the comments of the protos become the text of the OpenAPI document and
are stripped from the descriptors that the generated code holds. Run by `make generate`; `make check` runs it and
demands that nothing changed.
"""

import importlib.resources
import shutil
import sys
from pathlib import Path

from google.api import http_pb2
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parent.parent / "protos"
OUTPUT = HERE / "src"
PACKAGE = OUTPUT / "headrace"


def main() -> int:
    """Regenerates everything; returns protoc's exit code."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    for folder in PACKAGE.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    includes = [
        f"-I{PROTOS}",
        f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
        f"-I{Path(http_pb2.__file__).parent.parent.parent}",
    ]
    code: int = protoc.main(
        [
            "protoc",
            *includes,
            f"--python_out={OUTPUT}",
            f"--grpc_python_out={OUTPUT}",
            f"--mypy_out={OUTPUT}",
            f"--mypy_grpc_out={OUTPUT}",
            f"--descriptor_set_out={PACKAGE / 'descriptors.binpb'}",
            "--include_imports",
            "--include_source_info",
            *sources,
        ]
    )
    for folder in [path for path in PACKAGE.rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()
    return code


if __name__ == "__main__":
    sys.exit(main())
