"""Looks at a connection: does it work, and which tables are behind it. Answers as ExecutionInternalService
says.
"""

from __future__ import annotations

from typing import Any

import orjson
from headrace_connectors.api import (
    Column,
    ConnectorError,
    Environment,
    TableInfo,
    list_tables,
    test_connection,
)

from headrace_worker.engine.connections import Connections
from headrace_worker.engine.failure import TaskFailed, failure_of
from headrace_worker.engine.redaction import Redactor

_DEFAULT_TABLES = 100
_MOST_SCHEMAS = 1000


async def answer_test(
    payload: bytes, connections: Connections, environment: Environment, redactor: Redactor
) -> bytes:
    """Connect and log in. A connection that does not work is an answer."""
    order = orjson.loads(payload)
    try:
        report = await test_connection(connections.get("", str(order["connection"])), environment)
    except (TaskFailed, ConnectorError) as error:
        failure = failure_of(error).redacted(redactor)
        return orjson.dumps({"success": False, "code": failure.code, "message": failure.message})
    answer: dict[str, Any] = {"success": report.ok, "message": redactor.text(report.message)}
    if report.code:
        answer["code"] = report.code
    if report.ok:
        answer["message"] = answer["message"] or "connected"
        answer["latencyMs"] = round(report.latency_ms, 3)
    if report.server_version:
        answer["serverVersion"] = report.server_version
    if report.catalogue is not None:
        answer["schemas"] = report.catalogue.schemas[:_MOST_SCHEMAS]
        answer["tables"] = report.catalogue.tables
    return orjson.dumps(answer)


async def answer_tables(
    payload: bytes, connections: Connections, environment: Environment, redactor: Redactor
) -> bytes:
    """One page of the tables behind a connection, or why there is none."""
    order = orjson.loads(payload)
    limit = int(order.get("limit") or _DEFAULT_TABLES)
    try:
        connection = connections.get("", str(order["connection"]))
        page = await list_tables(connection, environment, limit, str(order.get("after") or ""))
    except (TaskFailed, ConnectorError) as error:
        failure = failure_of(error).redacted(redactor)
        told = {"code": failure.code, "class": failure.error_class, "message": failure.message}
        return orjson.dumps({"error": told})
    answer: dict[str, Any] = {"tables": [_table(table) for table in page.tables]}
    if page.next_after:
        answer["after"] = page.next_after
    return orjson.dumps(answer)


def _table(table: TableInfo) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": table.name,
        "kind": table.kind,
        "columns": [_column(column) for column in table.columns],
    }
    if table.schema:
        told["schema"] = table.schema
    if table.estimated_rows is not None:
        told["estimatedRows"] = table.estimated_rows
    return told


def _column(column: Column) -> dict[str, Any]:
    return {"name": column.name, "type": column.native or column.type, "nullable": column.nullable}
