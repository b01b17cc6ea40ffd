"""Generates the Python messages, gRPC stubs, their types and the descriptor set from protos/.

The descriptor set keeps source info, because the comments of the protos become the text of the OpenAPI
document and are stripped from the descriptors that the generated code holds. Run by `make generate`;
`make check` runs it and demands that nothing changed.

Everything is generated aside first. Then each file that differs takes its place by a rename, and only then
are files removed that nothing generates any more: whoever imports the stubs meanwhile finds each of them.
"""

import filecmp
import importlib.resources
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.api import http_pb2
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parent.parent / "protos"
PACKAGE = HERE / "src" / "headrace"


def main() -> int:
    """Regenerates everything; returns protoc's exit code, and changes nothing where that is not 0."""
    # On the same file system, so that a file can be renamed to its place.
    with tempfile.TemporaryDirectory(prefix=".generating-", dir=HERE) as aside:
        fresh = Path(aside) / "headrace"
        fresh.mkdir()
        code = _generate(fresh)
        if code == 0:
            _replace(fresh)
    return code


def _generate(fresh: Path) -> int:
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    includes = [
        f"-I{PROTOS}",
        f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
        f"-I{Path(http_pb2.__file__).parent.parent.parent}",
    ]
    code: int = protoc.main(
        [
            "protoc",
            *includes,
            f"--python_out={fresh.parent}",
            f"--grpc_python_out={fresh.parent}",
            f"--mypy_out={fresh.parent}",
            f"--mypy_grpc_out={fresh.parent}",
            f"--descriptor_set_out={fresh / 'descriptors.binpb'}",
            "--include_imports",
            "--include_source_info",
            *sources,
        ]
    )
    for folder in [path for path in fresh.rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()
    return code


def _replace(fresh: Path) -> None:
    generated = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for name in sorted(generated):
        target = PACKAGE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.is_file() and filecmp.cmp(fresh / name, target, shallow=False)):
            (fresh / name).replace(target)
    for path in list(_generated_before()):
        if path.relative_to(PACKAGE) not in generated:
            path.unlink()


def _generated_before() -> Iterator[Path]:
    """All files in the folders of the package; those beside the folders (`__init__.py`, `py.typed`) are
    written by hand."""
    for folder in PACKAGE.iterdir():
        if folder.is_dir():
            yield from (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")


if __name__ == "__main__":
    sys.exit(main())
