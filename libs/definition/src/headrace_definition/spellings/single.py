"""One `source` and one `target`: the shortest definition there is.

Their tasks are called `extract` and `load`, as their statuses are shown.
"""

from headrace_definition.nodes import Mapping, Sequence
from headrace_definition.problems import Findings
from headrace_definition.spellings.rewriting import made_list, rename_keys, with_entry

_PLURALS = {
    "source": "sources",
    "target": "sinks",
    "sink": "sinks",
    "destination": "sinks",
    "transform": "transformations",
}


def rewrite(root: Mapping, findings: Findings) -> Mapping:
    """The tree with `source` and `target` as lists of one."""
    for singular, plural in _PLURALS.items():
        value = root.get(singular)
        if value is None:
            continue
        root = rename_keys(root, {singular: plural}, findings)
        if isinstance(value, Mapping) and root.get(plural) is value:
            root = with_entry(root, plural, made_list([value], value))
        elif not isinstance(value, Sequence):
            continue
    return root
