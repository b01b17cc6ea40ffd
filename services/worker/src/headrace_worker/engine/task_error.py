"""A failure as the protocol carries it, for the engine and its supervisor."""

from __future__ import annotations

from headrace.execution.v1 import runs_pb2

from headrace_worker.engine.failure import Failure

_PREFIX = "ERROR_CLASS_"


def error_message(failure: Failure) -> runs_pb2.TaskError:
    """A failure as it is stored."""
    error = runs_pb2.TaskError(code=failure.code, message=failure.message, details=dict(failure.details))
    setattr(error, "class", runs_pb2.ErrorClass.Value(f"{_PREFIX}{failure.error_class}"))
    return error


def failure_from(error: runs_pb2.TaskError) -> Failure:
    """What `error_message` was given."""
    error_class = runs_pb2.ErrorClass.Name(getattr(error, "class")).removeprefix(_PREFIX)
    return Failure(error.code, error_class, error.message, dict(error.details))
