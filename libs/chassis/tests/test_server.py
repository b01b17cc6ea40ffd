"""Calls through a real server with all interceptors."""

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from headrace.common.v1 import options_pb2, reasons_pb2
from headrace.execution.v1 import internal_pb2, workers_pb2, workers_pb2_grpc
from headrace.metadata.v1 import api_keys_pb2, api_keys_pb2_grpc, workspaces_pb2, workspaces_pb2_grpc
from headrace_chassis import call_context, errors, idempotency
from headrace_chassis.channels import call_metadata, open_channel
from headrace_chassis.errors import HeadraceError, from_rpc_error
from headrace_chassis.identity import current_principal
from headrace_chassis.methods import ContractError
from headrace_chassis.observability import logs, tracing
from headrace_chassis.server import GrpcServer
from headrace_chassis.settings import ServerSettings
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import serve
from headrace_chassis.verification import TokenVerifier
from prometheus_client import REGISTRY

from .servicers import Workers, Workspaces, api_keys, workers, workspaces

WORKSPACE = str(uuid.UUID(int=7))
GET = workspaces_pb2.GetWorkspaceRequest(id=WORKSPACE)
CREATE = workspaces_pb2.CreateWorkspaceRequest(slug="a", name="A")


async def refusal(call: Any) -> HeadraceError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return from_rpc_error(failed.value)


def raising(error: Exception) -> Workspaces:
    async def behave(_: Any) -> Any:
        raise error

    return Workspaces(behave)


async def test_a_call_knows_its_caller_request_id_trace_deadline_and_key(authority: Authority) -> None:
    seen: dict[str, Any] = {}
    trace = f"00-{'a' * 32}-{'b' * 16}-01"

    async def look(_: Any) -> Any:
        seen["subject"] = current_principal().subject
        seen["request_id"] = call_context.current_request_id()
        seen["key"] = idempotency.current_key()
        seen["remaining"] = call_context.remaining_seconds()
        seen["trace"] = tracing.current_trace_id()
        return workspaces_pb2.Workspace()

    async with serve(authority, [workspaces(Workspaces(look))]) as served:
        stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
        given = call_metadata(authority.user("admin", subject="ada"), idempotency_key="k-1")
        metadata = (*given, ("x-request-id", "r-1"), ("traceparent", trace))
        await stub.CreateWorkspace(CREATE, metadata=metadata)
    assert (seen["subject"], seen["request_id"], seen["trace"]) == ("ada", "r-1", "a" * 32)
    assert (seen["key"].key, seen["key"].principal) == ("k-1", "ada")
    assert seen["key"].rpc == "/headrace.metadata.v1.WorkspaceService/CreateWorkspace"
    assert 0 < seen["remaining"] <= 30


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;DROP"])
async def test_an_odd_request_id_is_replaced(authority: Authority, given: str) -> None:
    seen: list[str] = []

    async def look(_: Any) -> Any:
        seen.append(call_context.current_request_id())
        return workspaces_pb2.Workspace()

    async with serve(authority, [workspaces(Workspaces(look))]) as served:
        stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
        await stub.GetWorkspace(GET, metadata=(*served.as_user(), ("x-request-id", given)))
    assert uuid.UUID(seen[0]).version == 7


class TestErrors:
    """What a caller is told."""

    async def told(self, authority: Authority, error: Exception) -> HeadraceError:
        async with serve(authority, [workspaces(raising(error))]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            # Without gRPC's own retries, which would make the test wait.
            return await refusal(stub.CreateWorkspace(CREATE, metadata=served.as_user("admin")))

    async def test_ours_arrive_whole(self, authority: Authority) -> None:
        got = await self.told(authority, errors.NameTaken("workspace", "a"))
        assert (got.code, got.metadata) == ("NAME_TAKEN", {"kind": "workspace", "name": "a"})

    @pytest.mark.parametrize(("many", "long"), [(200, 100), (200, 1_000), (2, 100_000)])
    async def test_as_many_problems_arrive_as_a_call_can_carry(
        self, authority: Authority, many: int, long: int
    ) -> None:
        problems = [errors.Problem("WRONG", f"nodes[{n}]", "ł" * long) for n in range(many)]
        got = await self.told(authority, errors.InvalidDefinition(problems))
        assert got.code == "INVALID_DEFINITION"
        assert got.problems[0].message.startswith("ł" * min(long, 2_000))
        whole = len(got.problems) == many
        assert whole or got.problems[-1].message == f"and {many - len(got.problems) + 1} more"

    async def test_others_arrive_without_their_text(self, authority: Authority) -> None:
        output = io.StringIO()
        logs.configure("test", stream=output)
        got = await self.told(authority, RuntimeError("password=hunter2 at /srv/app.py"))
        assert got.reason == reasons_pb2.REASON_INTERNAL
        assert "hunter2" not in got.message
        lines = [json.loads(line) for line in output.getvalue().splitlines()]
        told = next(line for line in lines if line["event"] == "unexpected failure")
        assert told["request_id"]
        assert "RuntimeError" in told["exception"]

    async def test_a_database_that_is_away_is_a_503_with_a_time(self, authority: Authority) -> None:
        import asyncpg

        got = await self.told(authority, asyncpg.CannotConnectNowError("the database system is starting up"))
        assert (got.code, got.retry_after) == ("UNAVAILABLE", 1.0)

    async def test_a_failure_of_a_service_behind_is_handed_on(self, authority: Authority) -> None:
        async with serve(authority, [workspaces(raising(errors.NotFound("workspace", "w")))]) as behind:
            inner = workspaces_pb2_grpc.WorkspaceServiceStub(behind.channel)

            async def ask(request: Any) -> Any:
                return await inner.GetWorkspace(request, metadata=call_metadata(current_principal().token))

            async with serve(authority, [workspaces(Workspaces(ask))]) as served:
                stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
                got = await refusal(stub.GetWorkspace(GET, metadata=served.as_user()))
        assert (got.code, got.metadata["id"]) == ("NOT_FOUND", "w")


class TestAuthentication:
    """No credentials, no call."""

    @pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer x.y.z", "Basic YTpi", "bearer  "])
    async def test_refused(self, authority: Authority, value: str | None) -> None:
        servicer = Workspaces()
        async with serve(authority, [workspaces(servicer)]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            metadata = () if value is None else (("authorization", value),)
            got = await refusal(stub.GetWorkspace(GET, metadata=metadata))
        assert got.code == "UNAUTHENTICATED"
        assert servicer.requests == []

    async def test_identity_headers_mean_nothing(self, authority: Authority) -> None:
        async with serve(authority, [workspaces(Workspaces())]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            forged = (("x-user", "admin"), ("x-tenant-id", WORKSPACE), ("x-roles", "admin"))
            assert (await refusal(stub.GetWorkspace(GET, metadata=forged))).code == "UNAUTHENTICATED"


CALLERS = ["viewer", "editor", "admin", "service", "worker"]
RPCS = {
    "GetWorkspace": {"viewer", "editor", "admin", "service"},
    "CreateWorkspace": {"admin", "service"},
    "ResolveSecrets": {"worker"},
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("rpc", RPCS)
async def test_an_rpc_takes_only_the_callers_that_its_contract_names(
    authority: Authority, caller: str, rpc: str
) -> None:
    tokens = {"service": authority.service, "worker": authority.worker}
    token = tokens[caller]() if caller in tokens else authority.user(caller)
    async with serve(authority, [workspaces(Workspaces()), workers(Workers())]) as served:
        stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
        worker_stub: Any = workers_pb2_grpc.WorkerServiceStub(served.channel)
        calls: dict[str, Callable[[], Any]] = {
            "GetWorkspace": lambda: stub.GetWorkspace(GET, metadata=call_metadata(token)),
            "CreateWorkspace": lambda: stub.CreateWorkspace(CREATE, metadata=call_metadata(token)),
            "ResolveSecrets": lambda: worker_stub.ResolveSecrets(
                workers_pb2.ResolveSecretsRequest(worker_id=WORKSPACE, ref=workers_pb2.AssignmentRef()),
                metadata=call_metadata(token),
            ),
        }
        if caller in RPCS[rpc]:
            assert await calls[rpc]() is not None
        else:
            assert (await refusal(calls[rpc]())).code == "ROLE_REQUIRED"


class TestDeadline:
    """Every unary call ends."""

    async def forever(self, _: Any) -> Any:
        await asyncio.Event().wait()

    async def test_without_one_the_default_holds(self, authority: Authority) -> None:
        async with serve(authority, [workspaces(Workspaces(self.forever))], default_deadline=0.05) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            got = await refusal(stub.GetWorkspace(GET, metadata=served.as_user(), timeout=60))
        assert (got.code, got.message) == (
            "DEADLINE_EXCEEDED",
            "GetWorkspace took longer than its deadline allowed",
        )

    async def test_it_shrinks_from_hop_to_hop(self, authority: Authority) -> None:
        seen: list[float] = []

        async def look(_: Any) -> Any:
            seen.append(call_context.remaining_seconds() or 0.0)
            return workspaces_pb2.Workspace()

        async with serve(authority, [workspaces(Workspaces(look))]) as behind:
            inner = workspaces_pb2_grpc.WorkspaceServiceStub(behind.channel)

            async def ask(request: Any) -> Any:
                seen.append(call_context.remaining_seconds() or 0.0)
                return await inner.GetWorkspace(request, metadata=call_metadata(current_principal().token))

            async with serve(authority, [workspaces(Workspaces(ask))]) as served:
                stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
                await stub.GetWorkspace(GET, metadata=served.as_user(), timeout=20)
        outer, innermost = seen
        assert innermost < outer * 0.96  # 0.95, and what gRPC rounds

    async def test_another_timeout_in_a_handler_is_no_deadline(self, authority: Authority) -> None:
        async with serve(authority, [workspaces(raising(TimeoutError()))]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            got = await refusal(stub.CreateWorkspace(CREATE, metadata=served.as_user("admin")))
        assert got.code != "DEADLINE_EXCEEDED"


class TestValidation:
    """Requests are checked before a handler sees them."""

    async def test_all_problems_at_once_with_their_places(self, authority: Authority) -> None:
        servicer = Workspaces()
        bad = workspaces_pb2.CreateWorkspaceRequest(
            slug="Ä", country="de", holidays=["2026-02-30"], timezone="X/Y"
        )
        async with serve(authority, [workspaces(servicer)]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            got = await refusal(stub.CreateWorkspace(bad, metadata=served.as_user("admin")))
        assert got.code == "INVALID_REQUEST"
        assert [problem.path for problem in got.problems] == ["slug", "country", "holidays[0]", "timezone"]
        assert servicer.requests == []

    async def test_a_role_comes_before_the_content(self, authority: Authority) -> None:
        async with serve(authority, [workspaces(Workspaces())]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            bad = workspaces_pb2.CreateWorkspaceRequest()
            assert (
                await refusal(stub.CreateWorkspace(bad, metadata=served.as_user("viewer")))
            ).code == "ROLE_REQUIRED"

    @pytest.mark.parametrize("key", ["", "with space", "x" * 256])
    async def test_an_idempotency_key_has_a_form(self, authority: Authority, key: str) -> None:
        async with serve(authority, [workspaces(Workspaces())]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            metadata = call_metadata(authority.user("admin"), idempotency_key=key)
            got = await refusal(stub.CreateWorkspace(CREATE, metadata=metadata))
        assert (got.code, got.problems[0].path) == ("INVALID_REQUEST", "Idempotency-Key")


class TestStreams:
    """Streams pass the same chain."""

    async def test_a_stream_flows_both_ways(self, authority: Authority) -> None:
        implementation = Workers()
        async with serve(authority, [workers(implementation)]) as served:
            stub: Any = workers_pb2_grpc.WorkerServiceStub(served.channel)
            call = stub.Connect(metadata=call_metadata(authority.worker()))
            for _ in range(3):
                await call.write(workers_pb2.ConnectRequest(heartbeat=workers_pb2.Heartbeat()))
                assert (await call.read()).WhichOneof("body") == "heartbeat_ack"
            call.cancel()
            await asyncio.wait_for(implementation.ended.wait(), 10)

    async def test_a_user_gets_no_stream(self, authority: Authority) -> None:
        async with serve(authority, [workers(Workers())]) as served:
            stub: Any = workers_pb2_grpc.WorkerServiceStub(served.channel)

            async def requests() -> AsyncIterator[Any]:
                yield workers_pb2.ConnectRequest(heartbeat=workers_pb2.Heartbeat())

            call = stub.Connect(requests(), metadata=served.as_user("admin"))
            assert (await refusal(call.read())).code == "ROLE_REQUIRED"


class TestLife:
    """Start, drain and stop."""

    async def test_a_server_refuses_what_is_not_implemented(self, authority: Authority) -> None:
        class Half(Workspaces):
            def GetWorkspace(self, request: Any, context: Any) -> Any:
                raise NotImplementedError

        settings = ServerSettings(**authority.server_values())
        with pytest.raises(ContractError, match="GetWorkspace is not implemented"):
            GrpcServer(settings, TokenVerifier(settings), [workspaces(Half())])

    async def test_a_taken_port_is_told(self, authority: Authority) -> None:
        async with serve(authority, [workspaces(Workspaces())]) as served:
            settings = ServerSettings(**{**authority.server_values(), "grpc_listen": served.target})
            second = GrpcServer(settings, TokenVerifier(settings), [workspaces(Workspaces())])
            with pytest.raises(OSError, match="GRPC_LISTEN"):
                await second.start()

    async def test_health_needs_no_token_and_tells_of_the_drain(self, authority: Authority) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(_: Any) -> Any:
            begun.set()
            await go_on.wait()
            return workspaces_pb2.Workspace(name="finished")

        async with serve(authority, [workspaces(Workspaces(slow))]) as served:
            health = health_pb2_grpc.HealthStub(served.channel)
            request = health_pb2.HealthCheckRequest(service="headrace.metadata.v1.WorkspaceService")
            watch = health.Watch(request)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            running = asyncio.ensure_future(_call(stub, served.as_user()))
            await begun.wait()
            drain = asyncio.create_task(served.server.drain())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            go_on.set()
            assert (await running).name == "finished"
            watch.cancel()
            await drain

    async def test_a_draining_server_tells_its_services(self, authority: Authority) -> None:
        told = asyncio.Event()

        async def on_drain() -> None:
            told.set()

        settings = ServerSettings(**authority.server_values())
        server = GrpcServer(
            settings, TokenVerifier(settings), [workspaces(Workspaces())], on_drain=[on_drain]
        )
        await server.start()
        await server.drain()
        await server.stop()
        await server.stop()
        assert told.is_set()


async def _call(stub: Any, metadata: Any) -> Any:
    return await stub.GetWorkspace(GET, metadata=metadata)


class TestChannel:
    """Retries where they are safe, and nowhere else."""

    async def test_a_read_is_repeated_until_the_service_is_back(self, authority: Authority) -> None:
        failures = [errors.Unavailable("x"), errors.Unavailable("x")]

        async def flaky(_: Any) -> Any:
            if failures:
                raise failures.pop()
            return workspaces_pb2.Workspace(name="back")

        servicer = Workspaces(flaky)
        async with serve(authority, [workspaces(servicer)]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            assert (await stub.GetWorkspace(GET, metadata=served.as_user())).name == "back"
        assert len(servicer.requests) == 3

    async def test_a_write_is_not(self, authority: Authority) -> None:
        servicer = raising(errors.Unavailable("x"))
        async with serve(authority, [workspaces(servicer)]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            assert (
                await refusal(stub.CreateWorkspace(CREATE, metadata=served.as_user("admin")))
            ).code == "UNAVAILABLE"
        assert len(servicer.requests) == 1

    async def test_what_may_have_happened_is_not(self, authority: Authority) -> None:
        servicer = raising(errors.OutcomeUnknown("the database"))
        async with serve(authority, [workspaces(servicer)]) as served:
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
            await refusal(stub.GetWorkspace(GET, metadata=served.as_user()))
        assert len(servicer.requests) == 1

    async def test_nobody_there_is_unavailable(self) -> None:
        channel = open_channel("127.0.0.1:1")
        stub = workspaces_pb2_grpc.WorkspaceServiceStub(channel)
        got = await refusal(stub.CreateWorkspace(CREATE, timeout=5))
        assert (got.code, got.retry_after) == ("UNAVAILABLE", 1.0)
        await channel.close()

    async def test_ids_travel_on(self, authority: Authority) -> None:
        seen: list[str] = []

        async def look(_: Any) -> Any:
            seen.append(f"{call_context.current_request_id()} {tracing.current_trace_id()}")
            return workspaces_pb2.Workspace()

        async with serve(authority, [workspaces(Workspaces(look))]) as behind:
            inner = workspaces_pb2_grpc.WorkspaceServiceStub(behind.channel)

            async def ask(request: Any) -> Any:
                await look(request)
                return await inner.GetWorkspace(request, metadata=call_metadata(current_principal().token))

            async with serve(authority, [workspaces(Workspaces(ask))]) as served:
                stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
                await stub.GetWorkspace(GET, metadata=(*served.as_user(), ("x-request-id", "r-9")))
        assert seen[0] == seen[1]
        assert seen[0].startswith("r-9 ")


async def test_calls_are_counted_by_rpc_and_code(authority: Authority) -> None:
    def count(code: str) -> float:
        labels = {"method": "headrace.metadata.v1.WorkspaceService/GetWorkspace", "code": code}
        return REGISTRY.get_sample_value("hr_rpc_server_calls_total", labels) or 0.0

    before = count("OK"), count("UNAUTHENTICATED")
    async with serve(authority, [workspaces(Workspaces())]) as served:
        stub = workspaces_pb2_grpc.WorkspaceServiceStub(served.channel)
        await stub.GetWorkspace(GET, metadata=served.as_user())
        await refusal(stub.GetWorkspace(GET))
    assert (count("OK"), count("UNAUTHENTICATED")) == (before[0] + 1, before[1] + 1)


def test_every_rpc_of_the_contracts_declares_a_role() -> None:
    import headrace
    from google.protobuf import descriptor_pb2

    files = descriptor_pb2.FileDescriptorSet.FromString(headrace.descriptor_set())
    methods = [method for file in files.file for service in file.service for method in service.method]
    assert methods
    assert internal_pb2.DESCRIPTOR is not None
    for method in methods:
        assert method.options.Extensions[options_pb2.method].role != options_pb2.ROLE_UNSPECIFIED, method.name


async def test_anybody_may_call_what_checks_by_itself_and_its_fields_are_still_checked(
    authority: Authority,
) -> None:
    async with serve(authority, [api_keys()]) as served:
        stub: Any = api_keys_pb2_grpc.ApiKeyServiceStub(served.channel)
        answer = await stub.ExchangeApiKey(api_keys_pb2.ExchangeApiKeyRequest(key="k"))
        assert answer.token == "t"
        empty = await refusal(stub.ExchangeApiKey(api_keys_pb2.ExchangeApiKeyRequest()))
        assert empty.reason == reasons_pb2.REASON_INVALID_REQUEST
        other = await refusal(stub.ListApiKeys(api_keys_pb2.ListApiKeysRequest()))
        assert other.reason == reasons_pb2.REASON_UNAUTHENTICATED
