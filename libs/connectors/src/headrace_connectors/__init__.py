"""Sources and sinks, and the ledger that makes loads land once.  The public surface is
:mod:`headrace_connectors.api`."""
