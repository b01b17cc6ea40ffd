"""What a caller may see. What is another tenant's, or in a workspace that the caller may not use, does not
exist for them."""

from uuid import UUID

from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.errors import NotFound
from headrace_chassis.identity import Principal

from headrace_execution.acceptance.definitions import DefinitionReader, Wanted
from headrace_execution.domain.run import Run
from headrace_execution.store.port import Store


async def visible_run(store: Store, principal: Principal, run_id: UUID) -> Run:
    """A run that the caller may see.

    Raises:
        NotFound: there is none of this id for them.
    """
    run = await store.get(principal.tenant, run_id)
    if run is None or not principal.may_use(run.workspace):
        raise NotFound("run", run_id)
    return run


async def visible_definition(
    reader: DefinitionReader, principal: Principal, wanted: Wanted
) -> definitions_pb2.Definition:
    """The latest definition of a pipeline that the caller may see.

    Raises:
        NotFound: there is none of this id for them.
        Unavailable: when metadata is away.
    """
    definition = await reader.read(wanted)
    if not principal.may_use(UUID(definition.workspace_id)):
        raise NotFound("pipeline", wanted.pipeline)
    return definition
