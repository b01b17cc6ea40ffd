"""The gateway's codecs beside protobuf's json_format, on a message with 25 fields set, both ways.

json_format is told to write defaults, as the codecs do, so that both write the same fields. Rounds alternate,
and the best round counts.

    python benches/json_codecs.py
"""

import time
from collections.abc import Callable
from typing import Final

import orjson
from google.protobuf import json_format
from headrace.execution.v1 import runs_pb2
from headrace_gateway.codec.compile_decode import DecoderCompiler
from headrace_gateway.codec.compile_encode import EncoderCompiler
from headrace_gateway.codec.findings import Findings

CALLS: Final = 2_000
ROUNDS: Final = 7
ENCODE_GOAL: Final = 2.2
DECODE_GOAL: Final = 6.0


def sample() -> runs_pb2.RunStatusResponse:
    """A run with 25 fields set: three tasks, instants, maps, metrics, a warning."""
    run = runs_pb2.RunStatusResponse(
        run_id="3fa85f64-5717-4562-b3fc-2c963f66afa6",
        pipeline_id="f47ac10b-58cc-4372-a567-0e02b2c3d479",
        overall_status=runs_pb2.RUN_STATE_RUNNING,
        engine=runs_pb2.ENGINE_JDBC,
        engine_reason="the sources are tables of one database",
        pipeline_version=3,
        attempt=1,
        retry_of="0b9f8c1e-9b7c-4b39-8f43-9d1f2d6f3b11",
        cancel_requested=True,
        triggered_by="u-1001",
        trigger_label="nightly",
        parameters=b'{"day":"2025-12-15"}',
        priority=runs_pb2.PRIORITY_NORMAL,
        workspace_id="9c1f0e2a-1111-2222-3333-444455556666",
        revision=17,
    )
    for instant in (run.created_at, run.started_at, run.finished_at, run.logical_date):
        instant.FromJsonString("2025-12-15T14:30:00.123456Z")
    for task, state in (("extract", 4), ("transform", 3), ("load", 1)):
        run.task_statuses[task] = state  # type: ignore[assignment] # the numbers of three states
        run.tasks.add(
            id=task, kind="transform", type="sql_transform", attempt=1, rows_in=336_776, rows_out=336_776
        )
    run.errors["load"] = "the table flights has no column tailnum"
    run.progress.rows_read = 336_776
    run.metrics.rows_written = 336_776
    run.warnings.add(task="check", code="NOT_NULL", message="8255 rows have no dep_delay")
    return run


def best(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Returns the best microseconds a call of both, measured in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for function, kept in zip((first, second), times, strict=True):
            began = time.perf_counter()
            for _ in range(CALLS):
                function()
            kept.append((time.perf_counter() - began) / CALLS * 1e6)
    return min(times[0]), min(times[1])


def main() -> None:
    """Measures and prints."""
    run = sample()
    assert len(run.ListFields()) == 25
    encode = EncoderCompiler().encoder(run.DESCRIPTOR)
    decode = DecoderCompiler().decoder(run.DESCRIPTOR)
    ours, theirs = (
        encode(run),
        json_format.MessageToJson(run, always_print_fields_with_no_presence=True, indent=None),
    )

    def read() -> runs_pb2.RunStatusResponse:
        message, found = runs_pb2.RunStatusResponse(), Findings()
        decode(orjson.loads(ours), message, "", found)
        assert not found
        return message

    assert read() == run
    assert json_format.Parse(theirs, runs_pb2.RunStatusResponse()) == run
    for name, goal, pair in (
        (
            "encode",
            ENCODE_GOAL,
            best(
                lambda: encode(run),
                lambda: json_format.MessageToJson(
                    run, always_print_fields_with_no_presence=True, indent=None
                ),
            ),
        ),
        ("decode", DECODE_GOAL, best(read, lambda: json_format.Parse(theirs, runs_pb2.RunStatusResponse()))),
    ):
        ratio = pair[1] / pair[0]
        verdict = "met" if ratio >= goal else "missed"
        times = f"{pair[0]:.1f} us, json_format {pair[1]:.1f} us"
        print(f"{name}: {times}: {ratio:.2f} times as fast (goal {goal}: {verdict})")


if __name__ == "__main__":
    main()
