"""The limit for the gateway: Starlette, grpc.aio and a hand-written conversion of one message.

Serves GET /api/v1/runs/{run_id} by the same RPC of the same execution service, and nothing else: no
verification, no limits, no request ids.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import grpc.aio
import orjson
import uvicorn
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.execution.v1 import runs_pb2 as pb
from headrace.execution.v1.runs_pb2_grpc import RunServiceStub
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def _name(enum: Any, value: int, prefix: str) -> str:
    return str(enum.Name(value))[len(prefix) :]


def _time(value: Timestamp) -> str:
    return value.ToDatetime(UTC).isoformat().replace("+00:00", "Z")


def _task(task: pb.TaskStatus) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": task.id,
        "kind": task.kind,
        "type": task.type,
        "status": _name(pb.TaskState, task.status, "TASK_STATE_"),
        "attempt": task.attempt,
        "rowsIn": task.rows_in,
        "rowsOut": task.rows_out,
        "bytes": task.bytes,
    }
    if task.HasField("started_at"):
        content["startedAt"] = _time(task.started_at)
    if task.HasField("finished_at"):
        content["finishedAt"] = _time(task.finished_at)
    if task.HasField("guarantee"):
        content["guarantee"] = task.guarantee
    return content


def convert(run: pb.RunStatusResponse) -> bytes:
    """The answer as somebody would write it by hand for this message alone."""
    content: dict[str, Any] = {
        "runId": run.run_id,
        "pipelineId": run.pipeline_id,
        "overallStatus": _name(pb.RunState, run.overall_status, "RUN_STATE_"),
        "taskStatuses": {
            key: _name(pb.TaskState, state, "TASK_STATE_") for key, state in run.task_statuses.items()
        },
        "errors": dict(run.errors),
        "tasks": [_task(task) for task in run.tasks],
        "engine": _name(pb.Engine, run.engine, "ENGINE_"),
        "engineReason": run.engine_reason,
        "createdAt": _time(run.created_at),
        "progress": {
            "tasksDone": run.progress.tasks_done,
            "tasksTotal": run.progress.tasks_total,
            "rowsRead": run.progress.rows_read,
            "rowsWritten": run.progress.rows_written,
        },
        "metrics": {
            "rowsRead": run.metrics.rows_read,
            "rowsWritten": run.metrics.rows_written,
            "bytesRead": run.metrics.bytes_read,
            "bytesWritten": run.metrics.bytes_written,
            "durationMs": run.metrics.duration_ms,
        },
        "warnings": [{"task": w.task, "code": w.code, "message": w.message} for w in run.warnings],
        "attempt": run.attempt,
        "cancelRequested": run.cancel_requested,
        "triggeredBy": run.triggered_by,
        "parameters": orjson.Fragment(run.parameters or b"{}"),
        "priority": _name(pb.Priority, run.priority, "PRIORITY_"),
        "workspaceId": run.workspace_id,
        "logicalDate": _time(run.logical_date),
        "revision": run.revision,
    }
    if run.HasField("pipeline_version"):
        content["pipelineVersion"] = run.pipeline_version
    if run.HasField("started_at"):
        content["startedAt"] = _time(run.started_at)
    if run.HasField("finished_at"):
        content["finishedAt"] = _time(run.finished_at)
    return orjson.dumps(content)


def application(target: str, token: str) -> Starlette:
    """The program, on one channel to the execution service."""
    stubs: list[Any] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(target) as channel:
            stubs.append(RunServiceStub(channel))
            yield

    async def get(request: Request) -> Response:
        message = await stubs[0].GetRunStatus(
            pb.GetRunStatusRequest(run_id=request.path_params["run_id"]),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=10,
        )
        return Response(convert(message), media_type="application/json")

    return Starlette(routes=[Route("/api/v1/runs/{run_id}", get)], lifespan=lifespan)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(
        application(options.target, options.token_file.read_text().strip()),
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=60,  # its connections rest while the other side is measured
    )
