"""From a pipeline, or a text given for it, to its compiled form."""

from dataclasses import replace

from headrace.metadata.v1 import definitions_pb2

from headrace_execution.acceptance.compiling import Compiler, Prepared
from headrace_execution.acceptance.definitions import DefinitionReader, Wanted


class Preparer:
    """Reads definitions and compiles what is not compiled yet."""

    def __init__(self, reader: DefinitionReader, compiler: Compiler) -> None:
        self._reader = reader
        self._compiler = compiler

    async def latest(self, definition: definitions_pb2.Definition, wanted: Wanted) -> Prepared:
        """The compiled form of a pipeline's latest version, as it was read.

        Raises:
            InvalidDefinition, NotFound, Unavailable.
        """
        prepared = self._compiler.latest(definition)
        if prepared is not None:
            return prepared
        if not definition.text:
            # It was known when it was asked for, and others have taken its place meanwhile.
            definition = await self._reader.read(replace(wanted, with_text=True))
        return await self._compiler.compile_version(definition)

    async def text(self, text: str, definition: definitions_pb2.Definition, wanted: Wanted) -> Prepared:
        """The compiled form of a text that came with a run of a pipeline.

        Raises:
            InvalidDefinition, NotFound, Unavailable.
        """
        connections = await self._compiler.connections_of(text, definition)
        if connections - definition.connection_types.keys():
            # The stored version does not refer to all of them, so metadata did not tell of them unasked.
            definition = await self._reader.read(replace(wanted, connections=connections))
        return await self._compiler.compile_text(text, definition)
