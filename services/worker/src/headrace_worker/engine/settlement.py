"""Sees to it that nothing of a stage can land any more, and tells what has landed."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_connectors.api import Environment

from headrace_worker.engine.binding import Binding
from headrace_worker.engine.connections import Connections
from headrace_worker.engine.failure import Failure, TaskFailed, failure_of
from headrace_worker.engine.loads import LandedLoad, close_all, open_load
from headrace_worker.engine.outputs import Outputs
from headrace_worker.engine.program import Program


@dataclass(frozen=True)
class Settlement:
    """What came of settling a stage."""

    landed: tuple[LandedLoad, ...]
    complete: bool
    """All loads of the stage had landed, and there were some."""
    unsettled: tuple[tuple[str, Failure], ...]
    """The sinks whose targets could not be asked, and why."""


async def settle(
    program: Program,
    binding: Binding,
    connections: Connections,
    environment: Environment,
    outputs: Outputs,
    fence: int,
) -> Settlement:
    """Raise a tombstone over each load of a stage, up to `fence`, and collect the receipts of those that had
    landed.

    A target that cannot be reached does not keep the others from being settled.
    """
    landed: list[LandedLoad] = []
    unsettled: list[tuple[str, Failure]] = []
    for task in program.sinks:
        try:
            load = await open_load(task, binding, connections, environment, outputs)
            try:
                load.receipt = await load.sink.tombstone(load.key, fence)
            finally:
                await close_all([load])
        except Exception as error:  # noqa: BLE001 - told to the server, which decides what to do about it
            failure = error.failure if isinstance(error, TaskFailed) else failure_of(error)
            unsettled.append((task.key, failure))
            continue
        if load.landed is not None:
            landed.append(load.landed)
    complete = bool(program.sinks) and len(landed) == len(program.sinks)
    return Settlement(tuple(landed), complete, tuple(unsettled))
