"""Execution under a simulated clock, network and crash schedule, all from one seed.

The services' own code runs: acceptance, the loops, leases, streams, the outbox and its consumers, and the
worker's supervisor and its line to the server. Simulated are only the edges: time (`virtual_loop`), what is
between processes (`network`), the database (the in-memory twin of the store), what a stage does to a user's
target (`stages`, `target`). `judge` checks after every commit, landing and message; `oracle` knows how each
run must end.
"""
