"""Lists called `transforms` and `destinations`, with a `version` of the author's own."""

from headrace_definition.nodes import Mapping
from headrace_definition.problems import Findings
from headrace_definition.spellings.rewriting import rename_keys

_WORDS = {
    "transforms": "transformations",
    "steps": "transformations",
    "destinations": "sinks",
    "targets": "sinks",
    "checks": "quality_checks",
    "quality": "quality_checks",
    "tests": "quality_checks",
    "variables": "parameters",
}


def rewrite(root: Mapping, findings: Findings) -> Mapping:
    """The tree with canonical names for its lists."""
    return rename_keys(root, _WORDS, findings)
