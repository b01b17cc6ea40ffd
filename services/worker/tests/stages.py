"""Stages from definitions, as the compiler makes them."""

from headrace_definition import compile_definition
from headrace_definition.plan import Plan

NOOP = """
sources:
  - {id: noop, values: [{x: 1}]}
sinks:
  - {discard: true}
"""

# Ten thousand million rows, in no memory: runs until it is stopped.
ENDLESS = """
sources:
  - {id: one, values: [{x: 1.5}]}
transformations:
  - {id: endless, type: sql_transform, inputs: [one],
     sql: "SELECT sum(a.range * b.range % 7) AS s FROM one, range(100000) a, range(100000) b"}
sinks:
  - {id: nowhere, input: endless, discard: true}
"""


def plan(text: str) -> Plan:
    """The plan of a definition."""
    return compile_definition(text).plan


def payload(text: str, stage: str = "s1") -> bytes:
    """What a worker gets of one stage of a definition."""
    return plan(text).stage_payload(stage)
