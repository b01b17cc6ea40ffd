"""Real parts for tests: a PostgreSQL, a NATS, an authority that signs tokens, and servers in process.

The fixtures `postgres_server`, `database_url`, `nats_server` and `authority` come with the pytest plugin
`headrace_chassis.testing.plugin`, which the conftest.py of the workspace's root loads. Beside them:
`testing.serving.serve`, `testing.waiting.eventually`, `testing.ports.free_port`, `testing.files.files_below`.
"""
