"""Structured logs: one JSON object a line (or text for people), with request and trace ids, and never a
secret."""

import contextlib
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog
from google.protobuf.message import Message
from pydantic import SecretStr

from headrace_chassis.call_context import current_request_id
from headrace_chassis.observability.tracing import current_trace_id
from headrace_chassis.redaction import REDACTED, is_secret_name, redacted

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(
    service: str,
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["json", "console"] = "json",
    stream: TextIO | None = None,
) -> None:
    """Sets the logs of this process up, also those that libraries write with the standard library's logging.

    Lines go to standard error unless another stream is given.
    """
    output = cast("TextIO", _Unbreakable(stream or sys.stderr))
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_ids(service),
        structlog.processors.format_exc_info if form == "json" else structlog.processors.StackInfoRenderer(),
        _without_secrets,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=output.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        # A logger that is kept keeps its stream; one that was asked for by name may be replaced later.
        cache_logger_on_first_use=stream is None,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries tell more than we want to know: of theirs, only what needs attention.
    root.setLevel(max(_LEVELS[level], logging.WARNING))


class _Unbreakable:
    """A stream that may go away (a pipe whose reader has died, a full disk): a process does not fail for its
    logs, least of all while it drains."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def _with_ids(service: str) -> structlog.types.Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        if request_id := current_request_id():
            event.setdefault("request_id", request_id)
        if trace_id := current_trace_id():
            event.setdefault("trace_id", trace_id)
        return event

    return add


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = _masked(name, value)
    return event


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, SecretStr) or is_secret_name(name):
        return REDACTED
    if isinstance(value, Message):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: _masked(str(key), item) for key, item in value.items()}
    return value
