"""Which engine runs a definition, and why; and what a sink can promise."""

from collections.abc import Iterable

from headrace_definition.model import Definition, Sink, Source
from headrace_definition.plan import EngineName, Guarantee
from headrace_definition.settings import STREAMING_CONNECTORS, CompileSettings

_TRANSACTIONAL = frozenset({"postgresql", "sqlite", "duckdb"})


def choose_engine(
    definition: Definition, sources: Iterable[Source], settings: CompileSettings
) -> tuple[EngineName, str]:
    """The engine, and the reason in a sentence.

    AUTO gives sources that never end to FLINK, declared size or parallelism beyond one worker to SPARK, and
    all else to the worker's own engine, JDBC.
    """
    if definition.engine != "AUTO":
        return definition.engine, f"the definition says {definition.engine}"
    sources = list(sources)
    for source in sources:
        if source.streaming or (source.connector or "").lower() in STREAMING_CONNECTORS:
            return "FLINK", f"the source {source.id} never ends"
    size = sum(source.expected_bytes or 0 for source in sources)
    if size > settings.worker_bytes:
        return "SPARK", f"the sources declare {size:,} bytes, more than one worker is given"
    parallelism = definition.execution.parallelism if definition.execution else None
    if parallelism is not None and parallelism > settings.worker_parallelism:
        return "SPARK", f"the declared parallelism of {parallelism} is more than one worker offers"
    return "JDBC", "all sources end, and nothing declared is beyond one worker"


def sink_guarantee(sink: Sink, connection_type: str | None) -> tuple[Guarantee, str]:
    """How often the rows of a load can land when it is repeated, and why."""
    if sink.discard:
        return "EXACTLY_ONCE", "nothing is kept"
    if sink.output is not None:
        return "EXACTLY_ONCE", "a file counts when the run records its receipt, which only one attempt can"
    if sink.path is not None or connection_type == "file":
        return "EXACTLY_ONCE", "a file lands by one rename to a name that a repeated load has too"
    if connection_type in _TRANSACTIONAL:
        return "EXACTLY_ONCE", "rows and the receipt of their load land in one transaction"
    if connection_type is None:
        return "AT_LEAST_ONCE", "the kind of its system is not known before the run"
    return "AT_LEAST_ONCE", f"{connection_type} offers no transaction for rows and receipt together"
