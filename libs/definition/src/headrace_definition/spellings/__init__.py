"""The ways a definition may be written, each turned into the canonical one without losing anything.

One module a spelling; each rewrites what is its own and leaves the rest alone, so that they may also be mixed
where no two say the same thing:

- `wrapped`: `config.source`/`config.destination`, connectors described in place
- `graph`: `nodes`/`edges` of a visual editor
- `single`: one `source` and one `target`
- `lists`: `transforms`/`destinations`
- `canonical`: the form all others become; other words for its keys, mappings for lists, left-out task keys
"""

from headrace_definition.nodes import Mapping
from headrace_definition.problems import Findings
from headrace_definition.spellings import canonical, graph, lists, single, wrapped


def normalise(root: Mapping, findings: Findings) -> Mapping:
    """The canonical tree of a definition in any spelling; what cannot be understood is added to
    `findings`."""
    tree = wrapped.rewrite(root, findings)
    tree = graph.rewrite(tree, findings)
    tree = single.rewrite(tree, findings)
    tree = lists.rewrite(tree, findings)
    return canonical.rewrite(tree, findings)
