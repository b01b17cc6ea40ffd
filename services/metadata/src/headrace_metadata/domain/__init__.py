"""The rules of metadata: no I/O, no framework; clock, ids and randomness are arguments."""
