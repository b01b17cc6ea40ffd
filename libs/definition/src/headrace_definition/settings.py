"""What the compiler is told about the world around a definition."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace_definition.loading import DEFAULT_MAX_BYTES, DEFAULT_MAX_NODES, LoadLimits

CONNECTORS = frozenset({"postgresql", "sqlite", "duckdb", "csv", "json", "parquet"})
"""Kinds of systems that rows can be moved from and to."""

STREAMING_CONNECTORS = frozenset({"kafka", "kinesis", "pulsar", "pubsub", "eventhubs", "rabbitmq"})
"""Kinds of systems whose rows keep coming."""


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """How strictly to read a definition, and what exists beside it."""

    max_bytes: int = DEFAULT_MAX_BYTES
    """Longest text, encoded as UTF-8."""
    max_nodes: int = DEFAULT_MAX_NODES
    """Most keys and values, aliases counted with all that they stand for."""
    for_run: bool = False
    """Whether a definition without tasks is an error, because it is about to run."""
    connection_types: Mapping[str, str] | None = None
    """Type of each connection of the workspace, by name and by id; None where they are not known here."""
    all_connections: bool = True
    """Whether there are no connections but those; else one that is missing among them is not judged."""
    connectors: frozenset[str] = CONNECTORS
    env_names: frozenset[str] | None = None
    """Variables that `${env.X}` may name; None where that is judged elsewhere."""
    worker_bytes: int = 1_000_000_000_000
    """Declared size of all sources beyond which AUTO no longer gives the work to one worker."""
    worker_parallelism: int = 16
    """Declared parallelism beyond which AUTO no longer gives the work to one worker."""

    @property
    def limits(self) -> LoadLimits:
        """The budgets of loading."""
        return LoadLimits(max_bytes=self.max_bytes, max_nodes=self.max_nodes)


@dataclass(frozen=True, slots=True)
class ConnectionDefaults:
    """The connections that a pipeline uses where its definition names none."""

    source: str | None = None
    target: str | None = None
