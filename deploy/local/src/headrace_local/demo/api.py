"""The little of the REST API that the demo needs."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from headrace_local.errors import LocalStackError

JsonObject = dict[str, Any]


class ApiError(LocalStackError):
    """The API refused a request; the message is its explanation."""


class Api:
    """A client of one stack, for one user."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=f"{url}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(60.0, connect=5.0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> JsonObject:
        """The answer to a GET."""
        return self._send("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """The answer to a POST."""
        return self._send("POST", path, body=body)

    def put(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """The answer to a PUT."""
        return self._send("PUT", path, body=body)

    def save(self, collection: str, body: Mapping[str, Any]) -> JsonObject:
        """Creates what bears this name, or changes it where it exists."""
        found = self._find(collection, str(body["name"]))
        if found is None:
            return self.post(collection, body)
        return self.put(f"{collection}/{found['id']}", body)

    def _find(self, collection: str, name: str) -> JsonObject | None:
        query: dict[str, str | int] = {"search": name, "limit": 200}
        while True:
            page = self.get(collection, **query)
            for entry in page["data"]:
                if entry["name"] == name:
                    return dict(entry)
            cursor = page["meta"].get("nextCursor")
            if not cursor:
                return None
            query["cursor"] = cursor

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> JsonObject:
        try:
            answer = self._client.request(method, path, params=query, json=body)
        except httpx.HTTPError as error:
            raise ApiError(f"{method} {path}: {error or type(error).__name__}") from error
        if answer.is_success:
            return dict(answer.json())
        raise ApiError(f"{method} {path} answered {answer.status_code}: {_explanation(answer)}")


def _explanation(answer: httpx.Response) -> str:
    if answer.headers.get("content-type", "").split(";")[0] != "application/problem+json":
        return answer.text[:500]
    problem = answer.json()
    lines = [f"{problem.get('code', '')} {problem.get('detail') or problem.get('title', '')}".strip()]
    for error in problem.get("errors", []):
        place = (
            f"line {error['line']}, column {error['column']}" if "line" in error else error.get("path", "")
        )
        lines.append(f"  {place}: {error['message']}")
    return "\n".join(lines)
