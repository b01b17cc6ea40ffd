"""RPCs that answer with a stream, served as WebSockets to many watchers."""
