"""Values that are kept as JSON text: read and written whole, never searched."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from headrace_execution.domain.recipe import (
    Channel,
    Notices,
    OnTimeout,
    PlanNote,
    Policy,
    Receiver,
    Recipe,
    StageSpec,
    TaskSpec,
    WaitSpec,
)
from headrace_execution.domain.run import (
    Columns,
    CursorValue,
    ErrorClass,
    Failure,
    LoadShape,
    Receipt,
    ReceivedSignal,
    StoredOutput,
    Warned,
)

_FORMAT = 1
_FORMAT_WITH_WAITS = 2
"""Of recipes that wait for signals: a release that would hand such stages to workers refuses them."""


def dump_failure(failure: Failure | None) -> str | None:
    """A failure as text."""
    if failure is None:
        return None
    return _dump(
        {
            "code": failure.code,
            "class": failure.kind,
            "message": failure.message,
            "details": dict(failure.details),
        }
    )


def load_failure(text: str | None) -> Failure | None:
    """A failure again."""
    if text is None:
        return None
    value = json.loads(text)
    return Failure(value["code"], ErrorClass(value["class"]), value["message"], value["details"])


def dump_warnings(warnings: Sequence[Warned]) -> str | None:
    """Warnings as text; none are NULL."""
    if not warnings:
        return None
    return _dump(
        [
            {"task": item.task, "code": item.code, "message": item.message, "details": dict(item.details)}
            for item in warnings
        ]
    )


def load_warnings(text: str | None) -> tuple[Warned, ...]:
    """Warnings again."""
    if text is None:
        return ()
    return tuple(
        Warned(item["task"], item["code"], item["message"], item["details"]) for item in json.loads(text)
    )


def dump_receipts(receipts: Sequence[Receipt]) -> str | None:
    """Receipts as text; none are NULL."""
    if not receipts:
        return None
    return _dump(
        [
            {
                "sink": item.sink,
                "partition": item.partition,
                "fence": item.fence,
                "rows": item.rows,
                "bytes": item.bytes,
                "checksum": item.checksum,
                "landedAt": item.landed_at.isoformat() if item.landed_at else None,
                "cursors": [_dump_cursor(cursor) for cursor in item.cursors],
                **({"output": asdict(item.output)} if item.output is not None else {}),
                **({"shape": asdict(item.shape)} if item.shape is not None else {}),
            }
            for item in receipts
        ]
    )


def load_receipts(text: str | None) -> tuple[Receipt, ...]:
    """Receipts again."""
    if text is None:
        return ()
    return tuple(
        Receipt(
            sink=item["sink"],
            partition=item["partition"],
            fence=item["fence"],
            rows=item["rows"],
            bytes=item["bytes"],
            checksum=item["checksum"],
            landed_at=datetime.fromisoformat(item["landedAt"]) if item["landedAt"] else None,
            cursors=tuple(_load_cursor(*cursor) for cursor in item["cursors"]),
            output=_output(item.get("output")),
            shape=_shape(item.get("shape")),
        )
        for item in json.loads(text)
    )


def _dump_cursor(cursor: CursorValue) -> list[str | None]:
    told = [cursor.column, cursor.before, cursor.after] if cursor.column else []
    return [cursor.sink, cursor.source, cursor.value.hex(), *told]


def _load_cursor(
    sink: str, source: str, value: str, column: str = "", before: str | None = None, after: str = ""
) -> CursorValue:
    return CursorValue(sink, source, bytes.fromhex(value), column, before, after)


def _output(value: dict[str, Any] | None) -> StoredOutput | None:
    if value is None:
        return None
    return StoredOutput(**{**value, "columns": _columns(value["columns"])})


def _shape(value: dict[str, Any] | None) -> LoadShape | None:
    if value is None:
        return None
    sources = tuple((task, _columns(columns)) for task, columns in value["sources"])
    return LoadShape(_columns(value["columns"]), sources)


def _columns(value: list[list[str]]) -> Columns:
    return tuple((name, kind) for name, kind in value)


def dump_signal(signal: ReceivedSignal | None) -> str | None:
    """A signal as text."""
    if signal is None:
        return None
    at = signal.received_at.isoformat()
    refusal = {"refusal": signal.refusal} if signal.refusal is not None else {}
    return _dump(
        {"data": signal.data.decode(), "at": at, "by": signal.sent_by, "run": str(signal.run), **refusal}
    )


def load_signal(text: str | None) -> ReceivedSignal | None:
    """A signal again."""
    if text is None:
        return None
    value = json.loads(text)
    at = datetime.fromisoformat(value["at"])
    return ReceivedSignal(value["data"].encode(), at, value["by"], UUID(value["run"]), value.get("refusal"))


def _wait(wait: WaitSpec) -> dict[str, Any]:
    return {
        "signal": wait.signal,
        "timeout": wait.timeout.total_seconds(),
        "onTimeout": wait.on_timeout,
        "data": wait.data.decode() if wait.data is not None else None,
        "description": wait.description,
        "proceedIf": wait.proceed_if.decode() if wait.proceed_if is not None else None,
    }


def _load_wait(value: dict[str, Any] | None) -> WaitSpec | None:
    if value is None:
        return None
    return WaitSpec(
        signal=value["signal"],
        timeout=timedelta(seconds=value["timeout"]),
        on_timeout=OnTimeout(value["onTimeout"]),
        data=value["data"].encode() if value["data"] is not None else None,
        description=value["description"],
        proceed_if=value["proceedIf"].encode() if value.get("proceedIf") is not None else None,
    )


def dump_recipe(recipe: Recipe) -> str:
    """A recipe without its digest as text: equal recipes are equal texts, and the digest is taken of it."""
    policy = recipe.policy
    return _dump(
        {
            "format": _FORMAT_WITH_WAITS if any(stage.wait for stage in recipe.stages) else _FORMAT,
            "engine": recipe.engine,
            "engineReason": recipe.engine_reason,
            "tasks": [[task.key, task.kind, task.type, task.guarantee] for task in recipe.tasks],
            "stages": [
                {
                    "key": stage.key,
                    "tasks": stage.tasks,
                    "dependsOn": stage.depends_on,
                    "loads": stage.loads,
                    "connections": stage.connections,
                    "payload": stage.payload.decode(),
                    "cursors": stage.cursors,
                    **({"limits": stage.limits} if stage.limits else {}),
                    **({"wait": _wait(stage.wait)} if stage.wait is not None else {}),
                    **({"signals": stage.signals} if stage.signals else {}),
                }
                for stage in recipe.stages
            ],
            "policy": {
                "maxRetries": policy.max_retries,
                "retryDelay": policy.retry_delay.total_seconds(),
                "attemptTimeout": policy.attempt_timeout.total_seconds(),
                "maxLost": policy.max_lost,
                "maxConcurrentRuns": policy.max_concurrent_runs,
                "queueWhenFull": policy.queue_when_full,
                "queueTimeout": _seconds(policy.queue_timeout),
                "totalTimeout": _seconds(policy.total_timeout),
            },
            "notes": [[note.code, note.path, note.message, note.line, note.column] for note in recipe.notes],
            **({"notices": _notices_text(recipe.notices)} if recipe.notices is not None else {}),
        }
    )


def load_recipe(digest: bytes, text: str) -> Recipe:
    """A recipe again. Raises ValueError for one of another format: a newer release wrote it."""
    value = json.loads(text)
    if value["format"] not in (_FORMAT, _FORMAT_WITH_WAITS):
        known = f"formats {_FORMAT} and {_FORMAT_WITH_WAITS}"
        raise ValueError(f"a recipe has format {value['format']}; this code reads {known}")
    policy = value["policy"]
    return Recipe(
        digest=digest,
        engine=value["engine"],
        engine_reason=value["engineReason"],
        tasks=tuple(TaskSpec(*task) for task in value["tasks"]),
        stages=tuple(
            StageSpec(
                key=stage["key"],
                tasks=tuple(stage["tasks"]),
                depends_on=tuple(stage["dependsOn"]),
                loads=tuple(stage["loads"]),
                connections=tuple(stage["connections"]),
                payload=stage["payload"].encode(),
                cursors=tuple((sink, source) for sink, source in stage.get("cursors", ())),
                limits=tuple((connection, most) for connection, most in stage.get("limits", ())),
                wait=_load_wait(stage.get("wait")),
                signals=tuple(stage.get("signals", ())),
            )
            for stage in value["stages"]
        ),
        policy=Policy(
            max_retries=policy["maxRetries"],
            retry_delay=timedelta(seconds=policy["retryDelay"]),
            attempt_timeout=timedelta(seconds=policy["attemptTimeout"]),
            max_lost=policy["maxLost"],
            max_concurrent_runs=policy["maxConcurrentRuns"],
            queue_when_full=policy["queueWhenFull"],
            queue_timeout=_span(policy["queueTimeout"]),
            total_timeout=_span(policy["totalTimeout"]),
        ),
        notes=tuple(PlanNote(*note) for note in value["notes"]),
        notices=_notices(value["notices"]) if "notices" in value else None,
    )


def _notices_text(notices: Notices) -> dict[str, Any]:
    receivers = [
        [receiver.on, receiver.channel, receiver.target, receiver.signing_secret]
        for receiver in notices.receivers
    ]
    return {"pipeline": notices.pipeline_name, "receivers": receivers}


def _notices(value: dict[str, Any]) -> Notices:
    receivers = tuple(
        Receiver(tuple(on), Channel(channel), target, secret)
        for on, channel, target, secret in value["receivers"]
    )
    return Notices(value["pipeline"], receivers)


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _dump(value: Any) -> str:
    # PostgreSQL's text holds no NUL; json writes it as an escape, so it survives.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
