"""From the starts that another service asks for to the orders of their runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from headrace.execution.v1 import internal_pb2
from headrace.metadata.v1 import definitions_pb2
from headrace_chassis.errors import HeadraceError, InvalidDefinition, InvalidParameters, NotFound
from headrace_chassis.identity import Principal
from headrace_chassis.ids import uuid7
from headrace_chassis.observability.tracing import current_traceparent

from headrace_execution import convert
from headrace_execution.acceptance.compiling import Compiler, Prepared
from headrace_execution.acceptance.definitions import DefinitionReader, Wanted
from headrace_execution.acceptance.parameters import check_parameters
from headrace_execution.acceptance.preparing import Preparer
from headrace_execution.acceptance.starting import Start
from headrace_execution.domain.lifecycle import Order
from headrace_execution.domain.recipe import Recipe
from headrace_execution.domain.starts import Refusal
from headrace_execution.domain.triggers import NEED_ACTIVE, Trigger, TriggerKind
from headrace_execution.errors import EngineNotAvailable

LONGEST_MESSAGE = 2000
"""The most characters of a refusal that are kept."""


@dataclass(frozen=True, slots=True)
class _Base:
    """What the starts of one pipeline share."""

    definition: definitions_pb2.Definition
    prepared: Prepared
    recipe: Recipe


_Found: TypeAlias = _Base | Refusal


class StartOrders:
    """Reads and compiles each pipeline once, however many starts there are of it."""

    def __init__(self, reader: DefinitionReader, preparer: Preparer, compiler: Compiler) -> None:
        self._reader = reader
        self._preparer = preparer
        self._compiler = compiler

    async def make(self, principal: Principal, asked: Sequence[internal_pb2.StartRun]) -> list[Start]:
        """A start for each that was asked for: with an order, or with why there can be no run.

        Raises:
            Unavailable: when metadata is away. Nothing is decided then.
        """
        pipelines = list({UUID(start.pipeline_id) for start in asked})
        found = await asyncio.gather(*(self._find(principal, pipeline) for pipeline in pipelines))
        bases = dict(zip(pipelines, found, strict=True))
        # Sorted: of starts in one transaction the first is the oldest, and these are its ids.
        run_ids = sorted(uuid7() for _ in asked)
        return [
            Start(start.key, self._order(principal, start, bases, run_id), start.queue_limit)
            for start, run_id in zip(asked, run_ids, strict=True)
        ]

    async def check(self, principal: Principal, pipeline: UUID, parameters: bytes) -> None:
        """Checks values against what a pipeline declares, as a start would; a pipeline that could not run now
        declares nothing.

        Raises:
            InvalidParameters: naming everything that does not fit.
            NotFound: there is no such pipeline in the tenant.
            Unavailable: when metadata is away.
        """
        try:
            base = await self._base(principal, pipeline)
        except (InvalidDefinition, EngineNotAvailable):
            return
        check_parameters(base.prepared.compiled.plan.parameters, parameters)

    async def _find(self, principal: Principal, pipeline: UUID) -> _Found:
        try:
            return await self._base(principal, pipeline)
        except (NotFound, InvalidDefinition, EngineNotAvailable) as error:
            return _refusal(error)

    async def _base(self, principal: Principal, pipeline: UUID) -> _Base:
        wanted = Wanted(principal.tenant, pipeline, principal.acts_as)
        definition = await self._reader.read(wanted)
        prepared = await self._preparer.latest(definition, wanted)
        return _Base(definition, prepared, self._compiler.recipe(prepared, definition, None))

    def _order(
        self,
        principal: Principal,
        start: internal_pb2.StartRun,
        bases: dict[UUID, _Found],
        run_id: UUID,
    ) -> Order | Refusal:
        base = bases[UUID(start.pipeline_id)]
        if isinstance(base, Refusal):
            return base
        kind = convert.trigger_of(start.trigger) or TriggerKind.MANUAL
        if kind in NEED_ACTIVE and not base.definition.is_active:
            return Refusal("PIPELINE_INACTIVE", "the pipeline is not active")
        try:
            parameters = check_parameters(base.prepared.compiled.plan.parameters, start.parameters)
        except InvalidParameters as error:
            return _refusal(error)
        return Order(
            run_id=run_id,
            stage_ids=tuple(uuid7() for _ in base.recipe.stages),
            tenant=principal.tenant,
            workspace=UUID(base.definition.workspace_id),
            pipeline=UUID(start.pipeline_id),
            pipeline_version=base.prepared.version,
            recipe=base.recipe,
            parameters=parameters,
            triggered_by=start.triggered_by or principal.acts_as,
            priority=convert.priority_of(start.priority) or base.prepared.priority,
            traceparent=current_traceparent(),
            trigger=Trigger(kind, start.trigger_id or None, start.key, convert.overlap_of(start.overlap)),
            logical_date=_instant(start.logical_date, start.HasField("logical_date")),
            interval_start=_instant(start.interval_start, start.HasField("interval_start")),
            interval_end=_instant(start.interval_end, start.HasField("interval_end")),
        )


def _refusal(error: HeadraceError) -> Refusal:
    # A value of a user's may be quoted in it, and PostgreSQL's text holds no NUL.
    return Refusal(error.code, error.message.replace("\0", "\ufffd")[:LONGEST_MESSAGE])


def _instant(value: Timestamp, given: bool) -> datetime | None:
    return value.ToDatetime(tzinfo=UTC) if given else None
