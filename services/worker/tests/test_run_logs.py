"""What people read of an attempt: written in the stage, carried to the server, never in its way."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote

import asyncpg
import pytest
from headrace.execution.v1 import logs_pb2, workers_pb2
from headrace_chassis.testing.waiting import eventually
from headrace_worker import log_courier
from headrace_worker.engine.redaction import Redactor
from headrace_worker.engine.run_log import BURST, INFO, LINES_A_SECOND, RunLog, log_line
from headrace_worker.log_courier import LogCourier
from headrace_worker.wiring import Worker

from .conftest import Running, process_of
from .engine_bench import EngineBench, Line, outcome
from .scripted_server import ScriptedExecution, Stream, stage
from .stages import ENDLESS, NOOP, payload

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SECRET = "p/a+s?s 'wörd\"-0123456789"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Sent:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.chunks: list[workers_pb2.LogChunk] = []

    def send(self, request: workers_pb2.ConnectRequest) -> None:
        self.chunks.append(request.log)


def texts(lines: Iterable[logs_pb2.LogLine]) -> list[str]:
    return [line.message for line in lines]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def courier(sent: Sent, clock: Clock) -> LogCourier:
    return LogCourier(sent, clock, lambda: NOW)


def lines(*messages: str) -> list[logs_pb2.LogLine]:
    return [log_line(NOW, INFO, "", 1, message, {}) for message in messages]


class TestWriting:
    def test_no_form_of_a_secret_is_in_a_line(self) -> None:
        log = RunLog(lambda: NOW, lambda: 0.0)
        log.redactor = Redactor([SECRET])
        encoded = SECRET.encode()
        forms = [
            SECRET,
            quote(SECRET, safe=""),
            json.dumps(SECRET),
            base64.b64encode(encoded).decode(),
            base64.urlsafe_b64encode(encoded).decode(),
            *(base64.b64encode(user + b":" + encoded).decode() for user in (b"a", b"ab", b"abc")),
        ]
        for form in forms:
            log.info("task", f"said {form} aloud", given=form)
        told = json.dumps([[line.message, dict(line.fields)] for line in log.take()], ensure_ascii=False)
        assert told.count("***") == 2 * len(forms)
        inner = base64.b64encode(b"abc" + encoded).decode()[4:-4]
        for leak in (SECRET[:-3], quote(SECRET, safe="")[:-3], inner):
            assert leak not in told

    def test_a_line_cannot_forge_another(self) -> None:
        log = RunLog(lambda: NOW, lambda: 0.0)
        log.info("", "a\x1b[31m\r\x00b\ud800", sql="SELECT 1\n\t-- two")
        (line,) = log.take()
        assert line.message == "a\ufffd[31m\ufffd\ufffdb?"
        assert line.fields["sql"] == "SELECT 1\n\t-- two"

    def test_lines_beyond_the_rate_are_left_out_and_counted(self, clock: Clock) -> None:
        log = RunLog(lambda: NOW, clock)
        for number in range(BURST + 100):
            log.info("", str(number))
        log.error("", "it broke")
        assert texts(log.take()) == [*map(str, range(BURST)), "it broke"]
        clock.now += 1.0
        log.info("", "later")
        told = texts(log.take())
        assert told[0] == "later"
        assert told[1].startswith("100 lines are left out here")
        clock.now += 10.0
        for number in range(BURST):
            log.info("", str(number))
        assert len(log.take()) <= 11 * LINES_A_SECOND + 1

    def test_a_line_is_cut_to_size(self) -> None:
        log = RunLog(lambda: NOW, lambda: 0.0)
        log.info("", "x" * 10**6, **{f"field{number}": "y" * 10**6 for number in range(100)})
        (line,) = log.take()
        assert line.ByteSize() < 200_000


class TestCarrying:
    def test_the_next_chunk_goes_when_the_one_before_is_acknowledged(
        self, courier: LogCourier, sent: Sent, clock: Clock
    ) -> None:
        work = stage(payload(NOOP))
        courier.take(work, lines("one"))
        courier.send_due()
        courier.take(work, lines("two", "three"))
        clock.now += 1.0
        courier.send_due()
        assert [texts(chunk.lines) for chunk in sent.chunks] == [["one"]]

        courier.acknowledged(workers_pb2.LogAck(ref=work.ref, sequence=0))
        courier.acknowledged(workers_pb2.LogAck(ref=work.ref, sequence=0))
        courier.send_due()

        assert [(chunk.sequence, texts(chunk.lines)) for chunk in sent.chunks] == [
            (0, ["one"]),
            (1, ["two", "three"]),
        ]
        assert not courier.is_idle
        courier.acknowledged(workers_pb2.LogAck(ref=work.ref, sequence=1))
        assert courier.is_idle

    def test_a_chunk_is_repeated_until_it_is_acknowledged(
        self, courier: LogCourier, sent: Sent, clock: Clock
    ) -> None:
        work = stage(payload(NOOP))
        courier.take(work, lines("one"))
        courier.send_due()
        courier.reconnected()
        clock.now += log_courier.REPEAT_SECONDS
        courier.send_due()
        assert [chunk.sequence for chunk in sent.chunks] == [0, 0, 0]

    def test_what_an_ended_attempt_has_logged_goes_at_once_and_is_forgotten(
        self, courier: LogCourier, sent: Sent, clock: Clock
    ) -> None:
        work, other = stage(payload(NOOP)), stage(payload(NOOP))
        courier.take(work, lines("one"))
        courier.ended(work.ref)
        courier.ended(other.ref)
        assert [texts(chunk.lines) for chunk in sent.chunks] == [["one"]]
        clock.now += log_courier.FORGET_SECONDS + 1
        courier.send_due()
        courier.reconnected()
        assert len(sent.chunks) == 1
        assert courier.is_idle

    def test_what_waits_is_bounded_and_says_what_is_missing(self, courier: LogCourier, sent: Sent) -> None:
        work = stage(payload(NOOP))
        courier.take(work, lines("first"))
        courier.send_due()
        courier.take(work, lines(*["x" * 4000] * 1000))
        for sequence in range(20):
            courier.acknowledged(workers_pb2.LogAck(ref=work.ref, sequence=sequence))
            courier.ended(work.ref)
        size = sum(chunk.ByteSize() for chunk in sent.chunks)
        assert size < log_courier.MOST_WAITING * 1.1
        assert all(chunk.ByteSize() < log_courier.LARGEST_CHUNK * 1.2 for chunk in sent.chunks)
        told = [text for chunk in sent.chunks for text in texts(chunk.lines)]
        kept = sum(text.startswith("x") for text in told)
        assert told[-1] == f"{1000 - kept} lines are left out here: the server did not take them in time"


async def log_of(bench: EngineBench, text: str) -> Line:
    async with bench.begun(bench.assignment(text)) as line:
        pass
    return line


async def test_a_stage_tells_its_steps(bench: EngineBench) -> None:
    line = await log_of(
        bench,
        """
sources: [{id: rows, values: [{x: 1}, {x: 2}]}]
transformations: [{id: kept, type: sql_transform, inputs: [rows], sql: "SELECT x + 40 AS y FROM rows"}]
quality_checks: [{id: few, type: row_count, input: kept, max: 1, severity: warning}]
sinks: [{id: out, input: kept, path: out.json, mode: replace}]
""",
    )
    assert line.result is not None
    assert outcome(line.result) == "COMPLETED"
    told = [(entry.task, entry.message) for entry in line.log]
    assert told[0] == ("", "attempt 1 of stage s1 begins")
    for step in ("opening the source", "started", "completed"):
        assert ("rows", step) in told
    assert ("few", "violated") in told
    assert ("out", "landed") in told
    assert told[-1] == ("", "the attempt is COMPLETED")
    fields = {(entry.task, entry.message): dict(entry.fields) for entry in line.log}
    assert "x + 40 AS y" in fields["kept", "computing"]["sql"]
    assert fields["rows", "completed"]["rowsOut"] == "2"
    assert fields["out", "landed"]["rows"] == "2"


async def test_a_failure_is_told_once_with_its_task(bench: EngineBench) -> None:
    line = await log_of(
        bench, "sources: [{id: rows, path: none.csv}]\nsinks: [{id: out, input: rows, path: out.json}]"
    )
    errors = [entry for entry in line.log if entry.level == logs_pb2.LOG_LEVEL_ERROR]
    assert [(entry.task, entry.fields["code"]) for entry in errors] == [
        ("rows", "FILE_NOT_FOUND"),
        ("", "FILE_NOT_FOUND"),
    ]


async def test_a_secret_that_a_server_repeats_is_not_in_the_log(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    password = bench.connections["warehouse"].secret
    assert len(password) > 8
    line = await log_of(
        bench,
        f"""
sources:
  - {{id: rows, connection: warehouse, query: "SELECT CAST('{password}' AS integer) AS x"}}
sinks: [{{id: out, input: rows, path: out.json}}]
""",
    )
    told = "\n".join(str(entry) for entry in line.log)
    assert password not in told
    assert "***" in told


async def test_what_a_server_says_unasked_is_in_the_log(
    bench: EngineBench, warehouse: asyncpg.Connection
) -> None:
    await warehouse.execute(
        "CREATE FUNCTION shout() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE WARNING 'beware of %', current_user; RETURN 1; END $$"
    )
    line = await log_of(
        bench,
        """
sources: [{id: rows, connection: warehouse, query: "SELECT shout() AS x"}]
sinks: [{id: out, input: rows, connection: warehouse, table: public.heard}]
""",
    )
    assert line.result is not None
    assert outcome(line.result) == "COMPLETED", line.result.error
    (warning,) = [entry for entry in line.log if entry.level == logs_pb2.LOG_LEVEL_WARNING]
    assert warning.message.startswith("warehouse: beware of ")


async def test_the_log_reaches_the_server_while_the_stage_runs(stream: Stream, worker: Worker) -> None:
    work = stage(payload(ENDLESS))
    stream.assign(work)

    await stream.until(lambda: stream.bodies("log"))

    assert not stream.bodies("result")
    chunk = stream.bodies("log")[0]
    assert (chunk.ref, chunk.attempt, chunk.sequence) == (work.ref, 1, 0)
    assert chunk.lines[0].message == "attempt 1 of stage s1 begins on worker worker-1"
    stream.cancel(work)
    await stream.result_of(work)
    order = [each.WhichOneof("body") for each in stream.received]
    assert order.index("result") > order.index("log")


async def test_a_no_op_logs_nothing(stream: Stream, worker: Worker) -> None:
    work = stage(payload(NOOP))
    stream.assign(work)
    await stream.result_of(work)
    worker.supervisor.logs.send_due()
    assert worker.supervisor.logs.is_idle
    assert not stream.bodies("log")


async def test_a_crash_is_told_by_the_worker(stream: Stream, worker: Worker) -> None:
    work = stage(payload(ENDLESS))
    stream.assign(work)
    pid = await process_of(worker, work)
    await asyncio.to_thread(os.kill, pid, signal.SIGKILL)

    def told() -> list[str]:
        found = [entry.message for chunk in stream.bodies("log") for entry in chunk.lines]
        return [text for text in found if text.startswith("the process that ran the attempt died")]

    (message,) = await stream.until(told)
    assert "killed by SIGKILL" in message


async def test_a_server_that_takes_no_logs_holds_nothing_up(
    run_worker: Running, execution: ScriptedExecution
) -> None:
    execution.takes_logs = False
    async with run_worker() as worker:
        stream = await execution.next_stream()
        work = stage(payload("sources: [{id: r, values: [{x: 1.5}]}]\nsinks: [{id: k, discard: true}]"))
        stream.assign(work)
        result = await stream.result_of(work)
        assert outcome(result) == "COMPLETED"
        assert not worker.supervisor.logs.is_idle

        execution.takes_logs = True
        stream.end()
        again = await execution.next_stream()
        await again.until(lambda: again.bodies("log"))

        async def delivered() -> bool:
            return worker.supervisor.logs.is_idle

        await eventually(delivered)
