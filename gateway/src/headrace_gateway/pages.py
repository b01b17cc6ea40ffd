"""What the gateway serves besides RPCs: the documentation, the OpenAPI document, health. A FastAPI
application.

Nothing is fetched from elsewhere, so that the documentation works without the internet.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from headrace_chassis.errors import HeadraceError
from starlette.exceptions import HTTPException

from .health import Readiness
from .http.failures import MethodNotAllowed, NoSuchRoute
from .http.problems import problem_answer

DOCUMENT: Final = "/openapi-pipeline-engine"
REQUEST_ID: Final = "headrace.request_id"
"""The key of the ASGI scope under which the gateway leaves the request id."""

_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
)
_OWN: Final = files(__package__ or "headrace_gateway") / "static"
_SWAGGER: Final = files("fastapi_offline") / "static"
_FILES: Final[dict[str, tuple[Traversable, str]]] = {
    "/docs": (_OWN / "docs.html", "text/html; charset=utf-8"),
    "/docs/docs.js": (_OWN / "docs.js", "text/javascript"),
    "/docs/swagger-ui-bundle.js": (_SWAGGER / "swagger-ui-bundle.js", "text/javascript"),
    "/docs/swagger-ui.css": (_SWAGGER / "swagger-ui.css", "text/css"),
}


def pages_app(document_yaml: bytes, document_json: bytes, readiness: Readiness) -> FastAPI:
    """Returns the application. What it does not know is answered with a problem document, as everywhere."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, _http_problem)

    def serve(path: str, answer: Any) -> None:
        app.add_api_route(path, answer, methods=["GET", "HEAD"], response_model=None)

    async def alive() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def ready() -> Response:
        failures = await readiness.failures()
        return Response("\n".join(failures) or "ready", 503 if failures else 200, media_type="text/plain")

    serve(f"{DOCUMENT}.yaml", _constant(document_yaml, "application/yaml"))
    serve(f"{DOCUMENT}.json", _constant(document_json, "application/json"))
    serve("/healthz", alive)
    serve("/readyz", ready)
    for path, (file, media_type) in _FILES.items():
        serve(path, _file(file, media_type))
    return app


def _constant(body: bytes, media_type: str) -> Any:
    async def answer() -> Response:
        return Response(body, media_type=media_type)

    return answer


def _file(file: Traversable, media_type: str) -> Any:
    async def answer() -> Response:
        # Read when asked for: two megabytes that most gateways are never asked for would stay in memory.
        headers = {"content-security-policy": _POLICY, "cache-control": "no-cache"}
        return Response(file.read_bytes(), media_type=media_type, headers=headers)

    return answer


async def _http_problem(request: Request, exception: Exception) -> Response:
    """Turns the framework's own errors, which are of unknown paths and methods, into problem documents."""
    status = exception.status_code if isinstance(exception, HTTPException) else 500
    error: HeadraceError = NoSuchRoute()
    if status == 405:
        error = MethodNotAllowed(["GET", "HEAD"])
    answer = problem_answer(error, request.url.path, request.scope.get(REQUEST_ID, ""))
    response = Response(answer.body, answer.status)
    response.raw_headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode("ascii"))]
    return response
