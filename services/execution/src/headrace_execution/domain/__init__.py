"""The rules of runs: pure functions over frozen values.

No I/O and no framework; the clock, ids and chance are arguments.
"""
