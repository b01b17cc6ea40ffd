"""Logs, the operations listener, and traces."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from headrace.metadata.v1 import definitions_pb2, workspaces_pb2, workspaces_pb2_grpc
from headrace_chassis.call_context import set_request_id
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import Unavailable
from headrace_chassis.observability import logs, tracing
from headrace_chassis.observability.metrics import OperationsServer
from headrace_chassis.redaction import REDACTED, redacted
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import serve
from pydantic import SecretStr

from .servicers import Workspaces, workspaces

CANARY = "hunter2-canary"


class TestLogs:
    """One object a line, with ids, and without secrets."""

    @pytest.fixture
    def output(self) -> io.StringIO:
        stream = io.StringIO()
        logs.configure("metadata", stream=stream)
        return stream

    def lines(self, output: io.StringIO) -> list[dict[str, Any]]:
        return [json.loads(line) for line in output.getvalue().splitlines()]

    async def test_ids_are_added(self, output: io.StringIO) -> None:
        set_request_id("r-1")
        tracing.set_traceparent(f"00-{'a' * 32}-{'b' * 16}-01")
        structlog.get_logger("x").info("hello", count=3)
        (line,) = self.lines(output)
        assert (line["event"], line["service"], line["level"], line["count"]) == (
            "hello",
            "metadata",
            "info",
            3,
        )
        assert (line["request_id"], line["trace_id"]) == ("r-1", "a" * 32)
        assert line["timestamp"].endswith("Z")

    def test_secrets_are_not_written(self, output: io.StringIO) -> None:
        message = definitions_pb2.ResolvedConnection(
            name="w", secret=CANARY, options={"password": CANARY, "schema": "public"}
        )
        structlog.get_logger("x").warning(
            "hello",
            password=CANARY,
            api_token=CANARY,
            value=SecretStr(CANARY),
            connection=message,
            options={"password": CANARY, "a": 1},
        )
        assert CANARY not in output.getvalue()
        (line,) = self.lines(output)
        assert line["password"] == REDACTED
        assert line["options"] == {"password": REDACTED, "a": 1}
        assert line["connection"]["name"] == "w"
        assert line["connection"]["options"]["schema"] == "public"

    def test_a_message_within_a_message_is_masked_too(self) -> None:
        inner = definitions_pb2.ResolvedConnection(secret=CANARY, reference="r")
        shown = redacted(definitions_pb2.ResolveConnectionsResponse(connections=[inner]))
        assert shown == {"connections": [{"reference": "r", "secret": REDACTED}]}

    def test_libraries_speak_through_the_same_stream(self, output: io.StringIO) -> None:
        logging.getLogger("some.library").warning("careful\nline")
        logging.getLogger("some.library").info("chatter")
        (line,) = self.lines(output)
        assert line["event"] == "careful\nline"

    def test_a_line_cannot_be_forged(self, output: io.StringIO) -> None:
        structlog.get_logger("x").info("hello", name='a"}\n{"event": "forged"}')
        assert len(output.getvalue().splitlines()) == 1


class TestOperations:
    """/metrics, /healthz and /readyz."""

    async def get(self, server: OperationsServer, path: str, method: str = "GET") -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.request(method, f"http://127.0.0.1:{server.port}{path}")

    async def test_what_is_served(self) -> None:
        server = OperationsServer("127.0.0.1:0")
        await server.start()
        try:
            assert (await self.get(server, "/healthz")).text == "ok\n"
            assert (await self.get(server, "/readyz?verbose")).status_code == 200
            assert "hr_rpc_server_duration_seconds" in (await self.get(server, "/metrics")).text
            assert (await self.get(server, "/")).status_code == 404
            assert (await self.get(server, "/healthz", "POST")).status_code == 405
            head = await self.get(server, "/healthz", "HEAD")
            assert (head.status_code, head.content) == (200, b"")
        finally:
            await server.stop()
            await server.stop()

    async def test_not_ready_says_why_and_lives_all_the_same(self) -> None:
        async def away() -> None:
            raise Unavailable("the database")

        server = OperationsServer("127.0.0.1:0", {"database": away})
        await server.start()
        try:
            ready = await self.get(server, "/readyz")
            assert ready.status_code == 503
            assert "database: the database is not available" in ready.text
            assert (await self.get(server, "/healthz")).status_code == 200
        finally:
            await server.stop()

    async def test_a_draining_process_is_not_ready(self) -> None:
        server = OperationsServer("127.0.0.1:0")
        await server.start()
        server.drain()
        try:
            assert (await self.get(server, "/readyz")).text == "draining\n"
        finally:
            await server.stop()

    @pytest.mark.parametrize("sent", [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe\r\n\r\n", b"x" * 20_000])
    async def test_nonsense_does_not_break_it(self, sent: bytes) -> None:
        server = OperationsServer("127.0.0.1:0")
        await server.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            writer.write_eof()
            await reader.read()
            writer.close()
            assert (await self.get(server, "/healthz")).status_code == 200
        finally:
            await server.stop()


class TestTraces:
    """The context always travels; spans are exported where that is configured."""

    @pytest.fixture
    def spans(self) -> Iterator[Any]:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        tracing.export_to("test", SimpleSpanProcessor(exporter))
        yield exporter
        tracing.shut_down()

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "00-x",
            f"00-{'0' * 32}-{'b' * 16}-01",
            f"00-{'a' * 32}-{'0' * 16}-01",
            f"ff-{'a' * 32}-{'b' * 16}-01",
        ],
    )
    def test_a_malformed_context_begins_a_new_trace(self, given: str) -> None:
        made = tracing.accepted_or_new(given)
        assert made != given
        assert tracing.accepted_or_new(made) == made

    async def test_a_call_across_services_is_one_trace(self, spans: Any, authority: Authority) -> None:
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        request = workspaces_pb2.GetWorkspaceRequest(id="01900000-0000-7000-8000-000000000001")
        async with serve(authority, [workspaces(Workspaces())]) as behind:
            inner = workspaces_pb2_grpc.WorkspaceServiceStub(behind.channel)

            async def ask(request: Any) -> Any:
                return await inner.GetWorkspace(request, metadata=call_metadata(authority.user()))

            async with serve(authority, [workspaces(Workspaces(ask))]) as served:
                stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
                await stub.GetWorkspace(request, metadata=(*served.as_user(), ("traceparent", trace)))
        finished = spans.get_finished_spans()
        assert {span.context.trace_id for span in finished} == {int("a" * 32, 16)}
        parents = {span.context.span_id: span.parent.span_id for span in finished}
        assert [span.kind.name for span in finished].count("SERVER") == 2
        assert int("b" * 16, 16) in parents.values()
        assert (
            len(set(parents) & set(parents.values())) == 2
        )  # client below the outer server, inner server below it
