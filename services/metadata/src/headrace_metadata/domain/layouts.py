"""How editors draw pipelines: kept as it is given, and judged by its shape alone."""

from collections.abc import Iterator

import orjson
from headrace_definition import Problem

MAX_NODES = 5_000
MAX_EDGES = 20_000


def layout_problems(text: str) -> Iterator[Problem]:
    """What is wrong with a layout: it is a JSON object whose `nodes` and `edges` are lists of objects."""
    try:
        layout = orjson.loads(
            text
        )  # as strict as what writes answers: no NaN, no lone surrogate, not too deep
    except orjson.JSONDecodeError as error:
        yield Problem("INVALID_FORMAT", "layout", f"must be JSON: {error}")
        return
    if not isinstance(layout, dict):
        yield Problem("INVALID_TYPE", "layout", "must be an object")
        return
    for name, most in (("nodes", MAX_NODES), ("edges", MAX_EDGES)):
        items = layout.get(name, [])
        if not isinstance(items, list):
            yield Problem("INVALID_TYPE", f"layout.{name}", "must be a list")
        elif len(items) > most:
            yield Problem(
                "TOO_LONG", f"layout.{name}", f"at most {most} are allowed, {len(items)} were given"
            )
        else:
            wrong = next((index for index, item in enumerate(items) if not isinstance(item, dict)), None)
            if wrong is not None:
                yield Problem("INVALID_TYPE", f"layout.{name}[{wrong}]", "must be an object")
