"""`config.source` and `config.destination`: connectors described in place. Also unwraps `definition:`, as
some clients send it."""

from headrace_definition.nodes import Mapping
from headrace_definition.problems import Findings
from headrace_definition.spellings.rewriting import rename_keys, text_of, with_entry, without

_ENDS = ("source", "destination", "target")
_OWN = frozenset(
    {"id", "connector", "stream", "config", "incremental", "description", "mode", "keys", "input"}
)
# Fields of the request around a definition; they belong to the API, not to the language.
_REQUEST_ONLY = frozenset(
    {"domain_id", "workspace_id", "workspaceId", "workspaceSlug", "schemaId", "scheduleCron", "isActive"}
)


def rewrite(root: Mapping, findings: Findings) -> Mapping:
    """The tree with wrappers taken off and connectors as sources and sinks."""
    root = _unwrap(root, "definition", findings)
    config = root.get("config")
    if isinstance(config, Mapping) and any(end in config for end in _ENDS):
        root = _unwrap(root, "config", findings)
        root = _connectors(root, findings, always=True)
    else:
        root = _connectors(root, findings, always=False)
    for key in _REQUEST_ONLY & root.entries.keys():
        findings.warning("IGNORED_KEY", root.key_node(key), "belongs to the request, not to the definition")
    return without(root, *_REQUEST_ONLY)


def _unwrap(root: Mapping, key: str, findings: Findings) -> Mapping:
    inner = root.get(key)
    if not isinstance(inner, Mapping):
        return root
    outer = without(root, key)
    for shared in outer.entries.keys() & inner.entries.keys():
        if shared in ("name", "version", "description", "tags"):
            findings.warning("GIVEN_TWICE", outer.key_node(shared), f"the one inside `{key}` is used")
        else:
            findings.error("CONFLICTING_KEYS", outer.key_node(shared), f"is given inside `{key}` too")
    return Mapping({**outer.entries, **inner.entries}, root.line, root.column, root.where)


def _connectors(root: Mapping, findings: Findings, *, always: bool) -> Mapping:
    for end in _ENDS:
        element = root.get(end)
        if isinstance(element, Mapping) and end != "source" and _is_output(element):
            root = with_entry(root, end, _output(element))
        elif isinstance(element, Mapping) and (always or _describes_connector(element)):
            root = with_entry(root, end, _connector(element, findings))
    return root


def _describes_connector(element: Mapping) -> bool:
    return (
        "name" in element
        and "connection" not in element
        and ("authentication" in element or "config" in element)
    )


def _is_output(element: Mapping) -> bool:
    word = text_of(element.get("name")) or text_of(element.get("type")) or ""
    return word.strip().lower() == "output" and "connection" not in element


def _output(element: Mapping) -> Mapping:
    """A destination named `output` is no connector: it keeps the rows with the run. Its `config` says how."""
    named = element.get("type") or element.get("name") or element
    inner = element.get("config")
    settings = inner.entries if isinstance(inner, Mapping) else {}
    own = without(element, "name", "config")
    own = Mapping({**own.entries, **settings}, element.line, element.column, element.where)
    return with_entry(own, "type", named)


def _connector(element: Mapping, findings: Findings) -> Mapping:
    element = rename_keys(element, {"name": "connector"}, findings)
    inner = element.get("config")
    settings = dict(inner.entries) if isinstance(inner, Mapping) else {}
    for key, entry in element.entries.items():
        if key in _OWN:
            continue
        if key in settings:
            findings.error("CONFLICTING_KEYS", entry[0], "is given inside `config` too")
        settings[key] = entry
    own = without(element, *(key for key in element.entries if key not in _OWN), "config")
    if settings:
        config = Mapping(settings, element.line, element.column, (element.where, "config"))
        own = with_entry(own, "config", config)
    return own
