"""Where incremental sources go on, and which sinks can share one reading of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace_connectors.api import Receipt

from headrace_worker.engine.cursor_values import unpack_cursors
from headrace_worker.engine.program import Program


def lower_bounds(
    program: Program, sink: str, known: Mapping[tuple[str, str], bytes], *, full_refresh: bool
) -> Mapping[str, bytes]:
    """Where each incremental source goes on for one sink; a source without an entry is read from its
    beginning.
    """
    if full_refresh:
        return {}
    return {
        source.key: known[sink, source.key]
        for source in program.sources
        if source.config.incremental is not None and known.get((sink, source.key))
    }


def caught_up(
    sink: str, landed: Receipt | None, fences: Mapping[tuple[str, str], int]
) -> Mapping[str, bytes]:
    """How far the sources of a sink have come by the last load that its target has, where the server was not
    told of that one: of a run whose end nobody heard. `fences` are those of the loads that it was told of.
    """
    told = [fence for (of, _), fence in fences.items() if of == sink]
    if landed is None or not told or landed.fence <= max(told):
        return {}
    return unpack_cursors(landed.cursor)


def share_readings(bounds: Mapping[str, Mapping[str, bytes]]) -> list[tuple[Mapping[str, bytes], list[str]]]:
    """Groups sinks (keys of `bounds`) that go on from the same place: each group takes one reading of the
    sources.

    Sinks of one stage part ways when a run lands one load and fails before the next. Reading once from the
    lower of the two would append rows again to the sink that is ahead; reading from the higher would lose
    rows of the other.
    """
    groups: list[tuple[Mapping[str, bytes], list[str]]] = []
    for sink, bound in bounds.items():
        for known, sinks in groups:
            if known == bound:
                sinks.append(sink)
                break
        else:
            groups.append((bound, [sink]))
    return groups


def bounds_for_others(
    program: Program, known: Mapping[tuple[str, str], bytes], sinks_here: Iterable[str], *, full_refresh: bool
) -> Mapping[str, bytes]:
    """Where sources go on whose rows leave the stage as artifacts, for sinks of other stages.

    Raises:
        ValueError: when those sinks do not all go on from the same place; the message names the source.
    """
    if full_refresh:
        return {}
    here = frozenset(sinks_here)
    bounds: dict[str, bytes] = {}
    for source in program.sources:
        if source.config.incremental is None:
            continue
        values = {value for (sink, of), value in known.items() if of == source.key and sink not in here}
        if len(values) > 1:
            raise ValueError(source.key)
        # An empty value is that of a sink which has landed nothing yet.
        if value := next(iter(values), b""):
            bounds[source.key] = value
    return bounds
