"""Logs of runs: how their lines are stored, and how they are read."""
