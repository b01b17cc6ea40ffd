"""Loads the fixtures that all suites of the workspace share, and says how properties are tried."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["headrace_chassis.testing.plugin"]

# How fast a machine makes examples says nothing of the code: a busy one must not fail a test by that.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
