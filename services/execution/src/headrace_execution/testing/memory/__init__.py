"""The store in memory: the twin of the one in PostgreSQL, held to the same conformance suite.

It keeps what the rules may rely on and nothing more: transactions that see what is committed when a statement
begins (READ COMMITTED), rows and names that are locked until a transaction ends, statements that pass over
what others have locked, sequences that count on whatever becomes of a transaction. Between any two statements
other transactions may run, as far as the `Link` lets them.
"""

from headrace_execution.testing.memory.data import Data, Deadlock, Link
from headrace_execution.testing.memory.store import MemoryStore

__all__ = ["Data", "Deadlock", "Link", "MemoryStore"]
