"""A real gateway on a real port, in front of stand-ins: the generated servicers, served in process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf import empty_pb2
from headrace.execution.v1 import runs_pb2
from headrace.metadata.v1 import pipelines_pb2, workspaces_pb2
from headrace_chassis.errors import NotFound, VersionMismatch
from headrace_chassis.server import GrpcServer, Service
from headrace_chassis.testing.authority import Authority
from headrace_chassis.testing.serving import serve
from headrace_chassis.testing.stand_ins import stand_in
from headrace_gateway.config import GatewaySettings
from headrace_gateway.server import HttpServer
from headrace_gateway.wiring import Parts, build

PIPELINE = "01900000-0000-7000-8000-00000000000a"
RUN = "01900000-0000-7000-8000-00000000000b"

DRAFT, SUCCESS = pipelines_pb2.PIPELINE_STATUS_DRAFT, pipelines_pb2.PIPELINE_STATUS_SUCCESS
RUNNING, JDBC = runs_pb2.RUN_STATE_RUNNING, runs_pb2.ENGINE_JDBC


class Recorder:
    """What reached the stand-ins: requests in their order, and the metadata of the last call."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, str | bytes] = {}
        self.answers: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {}

    async def take(self, request: Any, context: Any, default: Any) -> Any:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata() or ())
        answer = self.answers.get(type(request).__name__)
        return default if answer is None else await answer(request, context)


class Pipelines:
    """Answers with a pipeline at version 3."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def ListPipelines(self, request: Any, context: Any) -> Any:
        page = pipelines_pb2.ListPipelinesResponse()
        page.data.add(id=PIPELINE, name="one", version=3)
        page.meta.limit = request.limit or 20
        return await self._recorder.take(request, context, page)

    async def CreatePipeline(self, request: Any, context: Any) -> Any:
        made = pipelines_pb2.Pipeline(id=PIPELINE, name=request.name, version=1, status=DRAFT, is_active=True)
        return await self._recorder.take(request, context, made)

    async def GetPipeline(self, request: Any, context: Any) -> Any:
        if request.id != PIPELINE:
            raise NotFound("pipeline", request.id)
        found = pipelines_pb2.Pipeline(id=PIPELINE, name="one", version=3, status=SUCCESS)
        return await self._recorder.take(request, context, found)

    async def UpdatePipeline(self, request: Any, context: Any) -> Any:
        if request.HasField("expected_version") and request.expected_version != 3:
            raise VersionMismatch(request.expected_version, 3)
        updated = pipelines_pb2.Pipeline(id=PIPELINE, name=request.name, version=4)
        return await self._recorder.take(request, context, updated)

    async def DeletePipeline(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, empty_pb2.Empty())

    async def ValidatePipeline(self, request: Any, context: Any) -> Any:
        valid = pipelines_pb2.ValidatePipelineResponse(valid=True)
        return await self._recorder.take(request, context, valid)

    async def DuplicatePipeline(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, pipelines_pb2.Pipeline(id=PIPELINE, version=1))

    async def ListPipelineVersions(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, pipelines_pb2.ListPipelineVersionsResponse())

    async def GetPipelineVersion(self, request: Any, context: Any) -> Any:
        version = pipelines_pb2.PipelineVersion(pipeline_id=request.id, version=request.version)
        return await self._recorder.take(request, context, version)


class Workspaces:
    """Answers with what was sent."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def ListWorkspaces(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, workspaces_pb2.ListWorkspacesResponse())

    async def CreateWorkspace(self, request: Any, context: Any) -> Any:
        made = workspaces_pb2.Workspace(id=PIPELINE, slug=request.slug)
        return await self._recorder.take(request, context, made)

    async def GetWorkspace(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, workspaces_pb2.Workspace(id=request.id))

    async def UpdateWorkspace(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, workspaces_pb2.Workspace(id=request.id))


class Runs:
    """Answers with a run that goes on."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def RunPipeline(self, request: Any, context: Any) -> Any:
        accepted = runs_pb2.RunResponse(
            run_id=RUN, pipeline_id=request.id, status=RUNNING, task_count=1, engine=JDBC
        )
        return await self._recorder.take(request, context, accepted)

    async def GetRunStatus(self, request: Any, context: Any) -> Any:
        run = runs_pb2.RunStatusResponse(run_id=request.run_id, pipeline_id=PIPELINE, overall_status=RUNNING)
        run.task_statuses["extract"] = runs_pb2.TASK_STATE_COMPLETED
        return await self._recorder.take(request, context, run)

    async def CancelRun(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, runs_pb2.CancelRunResponse(run_id=request.run_id))

    async def ListRuns(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, runs_pb2.ListRunsResponse())

    async def ListPipelineRuns(self, request: Any, context: Any) -> Any:
        return await self._recorder.take(request, context, runs_pb2.ListRunsResponse())


class Served:
    """A gateway that is being served, and clients of it."""

    def __init__(
        self,
        parts: Parts,
        server: HttpServer,
        authority: Authority,
        recorder: Recorder,
        back: GrpcServer | None,
    ) -> None:
        port = server.port
        self.parts = parts
        self.server = server
        self.back = back
        self.port = port
        self.authority = authority
        self.recorder = recorder
        self.base_url = f"http://127.0.0.1:{port}"
        self.anonymous = httpx.AsyncClient(base_url=self.base_url)
        self.client = self.as_user("admin")

    def as_user(self, role: str, **more: Any) -> httpx.AsyncClient:
        token = self.authority.user(role, **more)
        return httpx.AsyncClient(base_url=self.base_url, headers={"Authorization": f"Bearer {token}"})


Serve = Callable[..., Awaitable[Served]]


def _service(messages: Any, name: str, implementation: object) -> Service:
    return stand_in(messages.DESCRIPTOR.services_by_name[name], implementation)


async def start(stack: AsyncExitStack, authority: Authority, **settings: Any) -> Served:
    """Serves a gateway in front of the stand-ins until the stack unwinds."""
    recorder = Recorder()
    services = [
        _service(pipelines_pb2, "PipelineService", Pipelines(recorder)),
        _service(workspaces_pb2, "WorkspaceService", Workspaces(recorder)),
        _service(runs_pb2, "RunService", Runs(recorder)),
    ]
    back = await stack.enter_async_context(serve(authority, services))
    targets = {"metadata": back.target, "execution": back.target}
    given = GatewaySettings(**{**authority.auth_values(), "http_listen": "127.0.0.1:0", **settings})
    return await serve_parts(stack, build(given, targets), given, authority, recorder, back.server)


async def serve_parts(
    stack: AsyncExitStack,
    parts: Parts,
    settings: GatewaySettings,
    authority: Authority,
    recorder: Recorder,
    back: GrpcServer | None = None,
) -> Served:
    """Serves a gateway that is built until the stack unwinds."""
    for channel in parts.channels:
        stack.push_async_callback(channel.close)
    await parts.verifier.start()
    server = HttpServer(
        parts.app, settings.http_listen, settings.header_timeout_seconds, 1.0, settings.ping_seconds
    )
    await server.start()
    stack.push_async_callback(server.drain)
    served = Served(parts, server, authority, recorder, back)
    stack.push_async_callback(served.client.aclose)
    stack.push_async_callback(served.anonymous.aclose)
    return served


@pytest_asyncio.fixture(loop_scope="session")
async def serve_gateway(authority: Authority) -> AsyncIterator[Serve]:
    """Returns what serves a gateway with settings of the test's own."""
    async with AsyncExitStack() as stack:
        yield lambda **settings: start(stack, authority, **settings)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def usual_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A gateway with the usual settings, for the whole session."""
    async with AsyncExitStack() as stack:
        yield await start(stack, Authority(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def gateway(usual_gateway: Served) -> Served:
    """A gateway with the usual settings, whose stand-ins have forgotten the tests before."""
    usual_gateway.recorder.forget()
    return usual_gateway


@pytest.fixture
def pipeline_id() -> str:
    """The pipeline that exists."""
    return PIPELINE


@pytest.fixture
def run_id() -> str:
    """The run that exists."""
    return RUN
