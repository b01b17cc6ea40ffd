"""The rules of schedules, without I/O."""
