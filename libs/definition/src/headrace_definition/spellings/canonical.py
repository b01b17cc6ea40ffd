"""The canonical form: what the others become, with its own tolerances.

Lists of tasks may be mappings from task key to task; keys may be in camelCase; a list of one may be a
single value; task keys may be left out.
"""

from collections.abc import Callable
from collections.abc import Mapping as Words
from typing import get_args

from headrace_definition.model import Definition, QualityCheck, Sink, Source, Transformation, WaitForSignal
from headrace_definition.model.base import Element
from headrace_definition.model.settings import Execution, Orchestration, Schedule
from headrace_definition.model.sources import Incremental
from headrace_definition.nodes import Mapping, Node, Scalar, Sequence
from headrace_definition.problems import Findings
from headrace_definition.spellings.rewriting import (
    is_task_key,
    made,
    made_list,
    made_mapping,
    one_as_list,
    rename_keys,
    snake,
    snake_keys,
    task_key,
    text_of,
    with_entry,
    without,
)
from headrace_definition.spellings.words import (
    CHECK_TYPES,
    CHECK_WORDS,
    FILE_FORMATS,
    MODES,
    PLAIN_KINDS,
    SEVERITIES,
    SINK_WORDS,
    SOURCE_WORDS,
    TRANSFORMATION_TYPES,
    TRANSFORMATION_WORDS,
    WAIT_WORDS,
)

_ElementRewrite = Callable[[Mapping, Findings], Mapping]


def keys_of(*models: type[Element]) -> frozenset[str]:
    """The keys that elements of these kinds have in a text."""
    return frozenset(field.alias or name for model in models for name, field in model.model_fields.items())


_TOP_KEYS = keys_of(Definition)
_SOURCE_KEYS = keys_of(Source)
_SINK_KEYS = keys_of(Sink)
_TRANSFORMATION_KEYS = keys_of(
    *(kind for kind in get_args(get_args(Transformation)[0]) if kind is not WaitForSignal)
)
_WAIT_KEYS = keys_of(WaitForSignal)
_CHECK_KEYS = keys_of(*get_args(get_args(QualityCheck)[0]))
_LIST_KEYS = ("inputs", "columns", "keys", "group_by", "order_by", "to_columns", "on", "after")
_SCHEDULE_WORDS = {"cronExpression": "cron", "cron_expression": "cron", "expression": "cron"}
_MANY_INPUTS = frozenset({"sql_transform", "union"})


def rewrite(root: Mapping, findings: Findings) -> Mapping:
    """The tree in canonical form; what is not understood stays, and reading the model reports it."""
    root = snake_keys(root, _TOP_KEYS, findings)
    root = _schedule(_version(root), findings)
    root = _parameters(one_as_list(root, ("tags",)), findings)
    execution = root.get("execution")
    if isinstance(execution, Mapping):
        root = with_entry(root, "execution", snake_keys(execution, keys_of(Execution), findings))
    root = _notifications(root)
    rewrites: tuple[tuple[str, _ElementRewrite], ...] = (
        ("sources", _source),
        ("transformations", _transformation),
        ("quality_checks", _check),
        ("sinks", _sink),
    )
    for name, rewrite_element in rewrites:
        root = _elements(root, name, rewrite_element, findings)
    return _with_task_keys(root)


def _version(root: Mapping) -> Mapping:
    """`1`, `"1"` and `1.0` name the language; any other text is a version of the author's own."""
    node = root.get("version")
    if not isinstance(node, Scalar) or isinstance(node.value, bool):
        return root
    if node.value == 1 or node.text.strip() == "1":
        return with_entry(root, "version", made(1, node))
    if isinstance(node.value, str) and node.value.strip():
        root = with_entry(root, "version", made(1, node))
        return root if "version_label" in root else with_entry(root, "version_label", made(node.value, node))
    return root


def _schedule(root: Mapping, findings: Findings) -> Mapping:
    """A schedule may stand at the top, and be just its cron expression."""
    schedule, enabled = root.get("schedule"), root.get("enabled")
    orchestration = root.get("orchestration")
    if isinstance(orchestration, Scalar) and orchestration.value is None:
        root, orchestration = without(root, "orchestration"), None
    if isinstance(schedule, Scalar) and schedule.value is None:
        root, schedule = without(root, "schedule"), None
    if schedule is not None or enabled is not None:
        at = schedule or enabled or root
        orchestration = orchestration or Mapping({}, at.line, at.column, root.where)
        if not isinstance(orchestration, Mapping):
            return root
        if schedule is not None and "schedule" in orchestration:
            findings.error("CONFLICTING_KEYS", root.key_node("schedule"), "is given in `orchestration` too")
        elif schedule is not None:
            orchestration = with_entry(orchestration, "schedule", schedule)
    if not isinstance(orchestration, Mapping):
        return root
    orchestration = snake_keys(orchestration, keys_of(Orchestration), findings)
    orchestration = _orchestration(orchestration, enabled, findings)
    return without(with_entry(root, "orchestration", orchestration), "schedule", "enabled")


def _orchestration(orchestration: Mapping, enabled: Node | None, findings: Findings) -> Mapping:
    orchestration = rename_keys(orchestration, {"cron": "schedule", "dependencies": "depends_on"}, findings)
    orchestration = one_as_list(orchestration, ("depends_on",))
    upstreams = orchestration.get("depends_on")
    if isinstance(upstreams, Sequence):
        named: list[Node] = [
            made_mapping([("pipeline", item)], item) if isinstance(item, Scalar) else item
            for item in upstreams.items
        ]
        orchestration = with_entry(orchestration, "depends_on", made_list(named, upstreams))
    schedule = orchestration.get("schedule")
    if isinstance(schedule, Scalar) and schedule.value is not None:
        schedule = made_mapping([("cron", schedule)], schedule)
    if isinstance(schedule, Mapping):
        schedule = rename_keys(schedule, _SCHEDULE_WORDS, findings)
        schedule = snake_keys(schedule, keys_of(Schedule), findings)
        if enabled is not None and "enabled" not in schedule:
            schedule = with_entry(schedule, "enabled", enabled)
        orchestration = with_entry(orchestration, "schedule", schedule)
    return orchestration


def _parameters(root: Mapping, findings: Findings) -> Mapping:
    """Parameters may be a list of `{name, ...}`, and one may be just its default."""
    parameters = root.get("parameters")
    if isinstance(parameters, Sequence):
        parameters = _by_name(parameters, "a parameter", findings)
    if not isinstance(parameters, Mapping):
        return root
    declared = ((name, _declaration(value)) for name, value in parameters.items())
    entries = {name: (parameters.entries[name][0], value) for name, value in declared}
    rewritten = Mapping(entries, parameters.line, parameters.column, parameters.where)
    return with_entry(root, "parameters", rewritten)


def _by_name(declared: Sequence, what: str, findings: Findings) -> Mapping:
    """A list of `{name, ...}` as a mapping."""
    named: list[tuple[str, Node]] = []
    for item in declared.items:
        name = text_of(item.get("name")) if isinstance(item, Mapping) else None
        if name is None or not isinstance(item, Mapping):
            findings.error("MISSING_KEY", item, f"{what} in a list needs a name", key="name")
        elif any(name == other for other, _ in named):
            findings.error("DUPLICATE_KEY", item, f"{what} is declared twice")
        else:
            named.append((name, without(item, "name")))
    return made_mapping(named, declared)


def _declaration(node: Node) -> Node:
    if isinstance(node, Mapping):
        return node
    if not isinstance(node, Scalar):
        return node
    if node.value is None:
        return made_mapping([], node)
    kinds = {bool: "boolean", int: "integer", float: "number"}
    kind = kinds.get(type(node.value), "string")
    return made_mapping([("type", made(kind, node)), ("default", node)], node)


def _notifications(root: Mapping) -> Mapping:
    notifications = root.get("notifications")
    if isinstance(notifications, Mapping):
        notifications = made_list([notifications], notifications)
    if not isinstance(notifications, Sequence):
        return root
    items = [
        one_as_list(item, ("on",)) if isinstance(item, Mapping) else item for item in notifications.items
    ]
    return with_entry(root, "notifications", made_list(items, notifications))


def _elements(root: Mapping, name: str, rewrite_element: _ElementRewrite, findings: Findings) -> Mapping:
    elements = root.get(name)
    if isinstance(elements, Scalar) and elements.value is None:
        return without(root, name)
    if isinstance(elements, Mapping):
        elements = made_list(_named(elements), elements)
    if not isinstance(elements, Sequence):
        return root
    rewritten = [
        rewrite_element(item, findings) if isinstance(item, Mapping) else item for item in elements.items
    ]
    return with_entry(root, name, Sequence(rewritten, elements.line, elements.column, elements.where))


def _named(elements: Mapping) -> list[Node]:
    """Elements of a mapping from task key to element."""
    named: list[Node] = []
    for key, value in elements.items():
        element = value
        if isinstance(value, Scalar) and value.value is None:
            element = Mapping({}, value.line, value.column, value.where)
        if isinstance(element, Mapping) and "id" not in element:
            element = with_entry(element, "id", made(key, elements.key_node(key)))
        named.append(element)
    return named


def _element(element: Mapping, words: Words[str, str], known: frozenset[str], findings: Findings) -> Mapping:
    """An element with the words of its kind, a name that is not a task key being kept as its description."""
    name = element.get("name")
    if "id" in element and isinstance(name, Scalar):
        element = without(element, "name")
        if "description" not in element:
            element = with_entry(element, "description", name)
    elif (text := text_of(name)) is not None and not is_task_key(text) and name is not None:
        if "description" not in element:
            element = with_entry(element, "description", name)
        element = with_entry(without(element, "name"), "id", made(task_key(text, set()), name))
    own = {word: key for word, key in words.items() if word not in known}
    element = snake_keys(rename_keys(element, own, findings), known, findings)
    if isinstance(identity := element.get("id"), Scalar) and type(identity.value) in (int, float):
        element = with_entry(element, "id", made(identity.text, identity))
    return one_as_list(element, _LIST_KEYS)


def _kind(element: Mapping) -> Mapping:
    """`type` of a source or sink: a file format, a connector, or what its other keys say anyway."""
    word = text_of(element.get("type"))
    if word is None or "connector" in element:
        return element
    node = element.get("type") or element
    kind = snake(word)
    element = without(element, "type")
    if kind in FILE_FORMATS and "format" not in element:
        return with_entry(element, "format", made(FILE_FORMATS[kind], node))
    if kind == "discard":
        return with_entry(element, "discard", made(value=True, like=node))
    if kind in PLAIN_KINDS or any(key in element for key in ("connection", "path", "values", "table")):
        return element
    return with_entry(element, "connector", made(word, node))


def _output(element: Mapping) -> Mapping:
    """A sink of `type: output`, whose `format` says the format of the output; parquet where it has none."""
    node = element.get("type")
    if node is None or snake(text_of(node) or "") != "output":
        return element
    element = without(element, "type")
    if "output" in element:
        return element
    form = element.get("format")
    return with_entry(without(element, "format"), "output", form or made("parquet", node))


def _source(element: Mapping, findings: Findings) -> Mapping:
    element = _kind(_element(element, SOURCE_WORDS, _SOURCE_KEYS, findings))
    partitions = element.get("partitions")
    if partitions is not None and "split" not in element:
        split = made_mapping([("ranges", partitions)], partitions)
        element = with_entry(without(element, "partitions"), "split", split)
    incremental = element.get("incremental")
    if isinstance(incremental, Scalar) and isinstance(incremental.value, str):
        element = with_entry(element, "incremental", made_mapping([("cursor", incremental)], incremental))
    elif isinstance(incremental, Mapping):
        words = {
            "column": "cursor",
            "cursor_column": "cursor",
            "cursor_field": "cursor",
            "cursorField": "cursor",
        }
        known = keys_of(Incremental)
        renamed = snake_keys(rename_keys(incremental, words, findings), known, findings)
        element = with_entry(element, "incremental", renamed)
    return element


def _sink(element: Mapping, findings: Findings) -> Mapping:
    element = _kind(_output(_element(element, SINK_WORDS, _SINK_KEYS, findings)))
    element = _single_input(element)
    return _word(element, "mode", MODES)


def _transformation(element: Mapping, findings: Findings) -> Mapping:
    if TRANSFORMATION_TYPES.get(snake((text_of(element.get("type")) or "").strip())) == "wait_for_signal":
        return _wait(element, findings)
    element = _element(element, TRANSFORMATION_WORDS, _TRANSFORMATION_KEYS, findings)
    if "type" not in element:
        guess = "sql_transform" if "sql" in element else "filter" if "condition" in element else None
        if guess is None:
            return element
        element = with_entry(element, "type", made(guess, element))
    element = _word(element, "type", TRANSFORMATION_TYPES)
    kind = text_of(element.get("type"))
    if kind in _MANY_INPUTS:
        if "inputs" not in element and isinstance(single := element.get("input"), Scalar):
            element = with_entry(without(element, "input"), "inputs", made_list([single], single))
        return element
    inputs = element.get("inputs")
    if (
        kind == "lookup_join"
        and "lookup" not in element
        and isinstance(inputs, Sequence)
        and len(inputs.items) == 2
    ):
        element = with_entry(without(element, "inputs"), "input", inputs.items[0])
        return with_entry(element, "lookup", inputs.items[1])
    return _single_input(element)


def _wait(element: Mapping, findings: Findings) -> Mapping:
    """A task that waits for a signal: `name` is the signal's, and the task's where it has no other."""
    name, own = text_of(element.get("name")), text_of(element.get("id"))
    node = element.get("name")
    if node is not None and name is not None and is_task_key(name) and "signal" not in element:
        element = without(element, "name")
        if own is None:
            element = with_entry(element, "id", made(name, node))
        elif name != own:
            element = with_entry(element, "signal", node)
    element = _single_input(_element(element, WAIT_WORDS, _WAIT_KEYS, findings))
    element = _word(element, "type", TRANSFORMATION_TYPES)
    data = element.get("data")
    if isinstance(data, Sequence):
        data = _by_name(data, "a field", findings)
    if isinstance(data, Mapping):
        declared = {key: (data.entries[key][0], _field(value)) for key, value in data.items()}
        data = Mapping(declared, data.line, data.column, data.where)
    return element if data is None else with_entry(element, "data", data)


def _field(node: Node) -> Node:
    """A field of a signal may be just its type."""
    if not isinstance(node, Scalar):
        return node
    return made_mapping([("type", node)] if node.value is not None else [], node)


def _check(element: Mapping, findings: Findings) -> Mapping:
    element = _element(element, CHECK_WORDS, _CHECK_KEYS, findings)
    element = _word(_word(element, "type", CHECK_TYPES), "severity", SEVERITIES)
    kind = text_of(element.get("type"))
    if kind in ("not_null", "unique", "referential"):
        element = one_as_list(rename_keys(element, {"column": "columns"}, findings), ("columns",))
    elif kind != "sql":
        element = _single_input(element)
    return element


def _single_input(element: Mapping) -> Mapping:
    """`inputs: [a]` of an element that reads one task."""
    inputs = element.get("inputs")
    if "input" in element or not isinstance(inputs, Sequence) or len(inputs.items) != 1:
        return element
    return with_entry(without(element, "inputs"), "input", inputs.items[0])


def _word(element: Mapping, key: str, words: Words[str, str]) -> Mapping:
    """The element with another word for the value of a key replaced by the canonical one."""
    node = element.get(key)
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        return element
    canonical = words.get(snake(node.value.strip()))
    return element if canonical in (None, node.value) else with_entry(element, key, made(canonical, node))


def _with_task_keys(root: Mapping) -> Mapping:
    """Gives each element without a task key one; a discard sink without one is no task of its own."""
    lists = [(name, root.get(name)) for name in ("sources", "transformations", "quality_checks", "sinks")]
    elements = [(name, value) for name, value in lists if isinstance(value, Sequence)]
    taken = {
        text.lower()
        for _, value in elements
        for item in value.items
        if isinstance(item, Mapping) and (text := text_of(item.get("id")))
    }
    for name, value in elements:
        items = [_with_task_key(item, name, taken) for item in value.items]
        root = with_entry(root, name, Sequence(items, value.line, value.column, value.where))
    return root


def _with_task_key(item: Node, name: str, taken: set[str]) -> Node:
    if not isinstance(item, Mapping) or text_of(item.get("id")) is not None:
        return item
    item = without(item, "id")
    discard = item.get("discard")
    if name == "sinks" and isinstance(discard, Scalar) and discard.value is True:
        return item
    if name == "sources":
        base = "extract"
    elif name == "sinks":
        base = "load"
    elif name == "transformations":
        base = text_of(item.get("type")) or "transform"
        base = "transform" if base == "sql_transform" else base
    else:
        subject = text_of(item.get("input"))
        base = (
            f"{subject}_{text_of(item.get('type')) or 'check'}"
            if subject
            else (text_of(item.get("type")) or "check")
        )
    return with_entry(item, "id", made(task_key(base, taken), item))
