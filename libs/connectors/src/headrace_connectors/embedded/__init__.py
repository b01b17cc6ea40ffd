"""Database files: SQLite and DuckDB, as sources and as sinks."""
