"""The life of a stage process: takes assignments from its supervisor until it has run a real one.

A stage that only counts rows written in the definition is done at once, in a few microseconds, and the
process takes the next. Any other stage gets the process for itself and the process ends with it: memory,
secrets and whatever a driver left behind are gone with it, and a fresh process is forked meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import time

import uvloop
from google.protobuf import timestamp_pb2
from headrace.execution.v1 import runs_pb2, workers_pb2

from headrace_worker.engine.logs import log_to_stderr
from headrace_worker.engine.options import EngineOptions
from headrace_worker.engine.program import program_of
from headrace_worker.engine.session import Session
from headrace_worker.processes.frames import Frame, pack, read_frame


def serve(connection: socket.socket, options: EngineOptions) -> None:
    """Work until the supervisor goes away, or a stage has been run that needed the process for itself."""
    random.seed()  # forked processes would all draw the same
    if options.max_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.max_file_bytes, options.max_file_bytes))
    logs = log_to_stderr()
    while True:
        frame = read_frame(connection)
        if frame is None:
            return
        kind, body = frame
        if kind is not Frame.ASSIGN:
            continue  # an order to stop what was done before the order came
        assignment = workers_pb2.Assignment.FromString(body)
        result = run_trivial(assignment)
        if result is None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(Session(assignment, options, logs).run(connection))
            return
        connection.sendall(pack(Frame.RESULT, result.SerializeToString()))


def run_trivial(assignment: workers_pb2.Assignment) -> workers_pb2.AssignmentResult | None:
    """The result of a stage that only counts rows which its definition holds; None for any other
    assignment.
    """
    if assignment.kind != workers_pb2.ASSIGNMENT_KIND_STAGE:
        return None
    started = time.time_ns()
    try:
        rows = program_of(assignment.payload).trivial_rows
    except ValueError:
        return None  # a session says precisely what is wrong
    if rows is None:
        return None
    result = workers_pb2.AssignmentResult(ref=assignment.ref, outcome=workers_pb2.OUTCOME_COMPLETED)
    begun, ended = _timestamp(started), _timestamp(time.time_ns())
    for key, count in rows.items():
        result.tasks.add(
            task=key,
            state=runs_pb2.TASK_STATE_COMPLETED,
            started_at=begun,
            finished_at=ended,
            rows_out=count,
        )
    return result


def _timestamp(nanoseconds: int) -> timestamp_pb2.Timestamp:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest)
