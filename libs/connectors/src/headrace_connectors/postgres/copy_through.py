"""PostgreSQL to PostgreSQL without decoding a row: binary COPY out, binary COPY in, block by block.

Only for columns of identical built-in types: binary COPY converts nothing, and types of a database's own have
other numbers elsewhere.  What :mod:`headrace_connectors.gate` checks in the scratch is checked here on the
staged rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from headrace_connectors.errors import data
from headrace_connectors.gate import duplicate_key
from headrace_connectors.identifiers import quote, quote_all
from headrace_connectors.model import ProgressListener, SourceResult, Staged
from headrace_connectors.postgres import catalog
from headrace_connectors.postgres.binary_stream import BinaryStream
from headrace_connectors.postgres.session import Session, connect
from headrace_connectors.postgres.sink import Plan, PostgresSink
from headrace_connectors.postgres.source import PostgresSource
from headrace_connectors.transfer import Meter

T = TypeVar("T")


async def copy_through(
    source: PostgresSource, sink: PostgresSink, progress: ProgressListener
) -> SourceResult | None:
    """Stage ``source`` into ``sink``; None when their columns are not identical."""
    if not await _identical(source, sink):
        return None
    plan = await sink.prepare(await source.columns(), direct=not _needs_checks(source, sink))
    meter = Meter(progress)
    if plan.direct:
        bound, check = await _as_one(source, sink, plan, meter)
    else:
        bound, check = await _side_by_side(source, sink, plan, meter)
        await _check(sink, plan)
    cursor, warnings = bound
    sink.staged(Staged(meter.rows, meter.bytes, f"crc32-binary:{check % 2**32:08x}"))
    return SourceResult(meter.rows, meter.bytes, cursor, warnings)


_Bound = tuple[bytes | None, tuple[str, ...]]


async def _as_one(source: PostgresSource, sink: PostgresSink, plan: Plan, meter: Meter) -> tuple[_Bound, int]:
    """All ranges into the one transaction that commits: it has one connection, and rows are written once."""
    stream = BinaryStream(meter)

    async def one(_: Session, raw: Any, query: str) -> None:
        await stream.read(raw, query)

    async def read() -> _Bound:
        bound: _Bound = await source.read(one, sink.session.backend)
        await stream.end()
        return bound

    return await _both(read(), sink.copy(plan, stream.blocks(), "binary")), stream.check


async def _side_by_side(
    source: PostgresSource, sink: PostgresSink, plan: Plan, meter: Meter
) -> tuple[_Bound, int]:
    """Each range into the staging table by a connection of its own, the first by the sink's."""
    sums: list[int] = []
    main = iter([True])

    async def one(_: Session, raw: Any, query: str) -> None:
        stream = BinaryStream(meter)

        async def read() -> None:
            await stream.read(raw, query)
            await stream.end()

        await _both(read(), _write(sink, plan, stream.blocks(), next(main, False)))
        sums.append(stream.check)

    bound: _Bound = await source.read(one, sink.session.backend)
    return bound, sum(sums)


async def _both(reading: Coroutine[Any, Any, T], writing: Coroutine[Any, Any, None]) -> T:
    """Wait for both ends; where one fails, the other is stopped, and the first error is told."""
    tasks = (asyncio.ensure_future(reading), asyncio.ensure_future(writing))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tasks[0].result()


async def _identical(source: PostgresSource, sink: PostgresSink) -> bool:
    """Whether every column meets one of the same built-in type; a target that is not there is made so."""
    async with sink.session.transaction("read") as raw:
        table = await catalog.find_table(raw, sink.spec.table or "")
    if not all(native.builtin and native.native == native.declared for native in source.natives):
        return False
    if sink.spec.schema_drift == "ignore":
        return False
    if table is None:
        return True
    for native in source.natives:
        found = table.column(native.name)
        if found is not None and (found.declared != native.declared or not found.builtin):
            return False
    return True


def _needs_checks(source: PostgresSource, sink: PostgresSink) -> bool:
    """A direct append may skip the staging table when the target's own constraints see every fault."""
    return sink.spec.mode != "append" or bool(source.spec.incremental and sink.spec.schema_drift == "evolve")


async def _write(
    sink: PostgresSink, plan: Plan, blocks: AsyncIterator[bytes | bytearray], main: bool
) -> None:
    """Through the sink's own connection (``main``), or, for the ranges after the first, through another."""
    if main:
        await sink.copy(plan, blocks, "binary")
        return
    session = await connect(sink.session.connection, sink.session.environment, "/range")
    try:
        async with session.transaction() as raw:
            schema, name = sink.staging_place()
            await raw.copy_to_table(
                name, schema_name=schema, columns=list(plan.names), source=blocks, format="binary"
            )
    finally:
        await asyncio.shield(session.close())


async def _check(sink: PostgresSink, plan: Plan) -> None:
    """Not-null, unique keys and the partition, on the staged rows."""
    async with sink.session.transaction() as raw:
        for column in plan.shape.loaded:
            found = plan.table.column(column.name) if plan.table else None
            required = (found is not None and found.not_null) or (
                sink.spec.mode == "merge" and column.name in sink.spec.keys
            )
            if required and await raw.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM {plan.staging} WHERE {quote(column.name)} IS NULL)"
            ):
                raise data(
                    "VALUE_DOES_NOT_FIT",
                    f"column {column.name}: NULL does not fit NOT NULL",
                    column=column.name,
                    value_class="NULL",
                )
        if sink.spec.mode == "merge":
            await _unique(raw, sink, plan)
        if sink.spec.mode == "replace_partition" and sink.spec.partition is not None:
            condition = sink.partition_condition(plan)
            if await raw.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM {plan.staging} WHERE NOT coalesce({condition}, false))"
            ):
                partition = sink.spec.partition
                raise data(
                    "VALUE_DOES_NOT_FIT",
                    f"column {partition.column}: a value outside the partition [{partition.start}, "
                    f"{partition.end})",
                    column=partition.column,
                    value_class="a value outside the partition",
                )


async def _unique(raw: Any, sink: PostgresSink, plan: Plan) -> None:
    keys = tuple(sink.spec.keys)
    texts = ", ".join(f"{quote(key)}::text" for key in keys)
    row = await raw.fetchrow(
        f"SELECT {texts}, count(*) FROM {plan.staging} GROUP BY {quote_all(keys)} HAVING count(*) > 1 LIMIT 1"
    )
    if row is not None:
        values = list(row.values())
        key = ", ".join(f"{name}={value}" for name, value in zip(keys, values, strict=False))
        raise duplicate_key(key, int(values[-1]))
