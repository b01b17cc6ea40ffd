"""Loads the fixtures that all suites of the workspace share."""

pytest_plugins = ["headrace_chassis.testing.plugin"]
