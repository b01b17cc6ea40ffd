"""Texts to trees: YAML 1.2 typing, budgets, and what is refused."""

import json
import math
import tracemalloc

import pytest
import yaml
from headrace_definition.loading import LoadLimits, load
from headrace_definition.nodes import Plain, plain
from headrace_definition.problems import DefinitionError, Findings
from hypothesis import given
from hypothesis import strategies as st

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
TREES = st.dictionaries(
    st.text(max_size=10),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    ),
    min_size=1,
    max_size=6,
)


def loaded(text: str | bytes, limits: LoadLimits | None = None) -> Plain:
    findings = Findings()
    tree = plain(load(text, limits or LoadLimits(), findings).root)
    assert not findings.found
    return tree


def refusal(text: str | bytes, limits: LoadLimits | None = None) -> tuple[str, int | None, int | None]:
    findings = Findings()
    try:
        load(text, limits or LoadLimits(), findings)
    except DefinitionError as error:
        problem = error.problems[0]
    else:
        problem = findings.errors[0]
    return problem.code, problem.line, problem.column


def loads_or_is_refused(text: str | bytes) -> bool:
    try:
        load(text, LoadLimits(), Findings())
    except DefinitionError as error:
        return len(error.problems) == 1
    return True


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30:45", "12:30:45"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("+5", 5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("~", None),
        ("Null", None),
        ("TRUE", True),
        ("tRue", "tRue"),
        ("2025-01-31", "2025-01-31"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("! 5", "5"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    tree = loaded(f"key: {text}")
    assert tree == {"key": value}
    assert isinstance(tree, dict)
    assert type(tree["key"]) is type(value)


@given(TREES)
def test_json_texts_of_any_values_load_as_those_values(tree: dict[str, object]) -> None:
    for text in (json.dumps(tree), json.dumps(tree, ensure_ascii=False)):
        assert loaded(text) == json.loads(text)


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused_with_a_problem(text: str) -> None:
    assert loads_or_is_refused(text)


@given(st.binary(max_size=200))
def test_any_bytes_load_or_are_refused_with_a_problem(data: bytes) -> None:
    assert loads_or_is_refused(data)


def alias_bomb() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=False):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


def deep_aliases() -> str:
    """Forty levels in each of 500 lines, each line holding the one before: 20,000 levels by aliases."""
    lines = [f"k0: &a0 {'[' * 40}1{']' * 40}"]
    lines += [f"k{i}: &a{i} {'[' * 40}*a{i - 1}{']' * 40}" for i in range(1, 500)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (alias_bomb(), "TOO_MANY_NODES"),
        (deep_aliases(), "TOO_DEEP"),
        ("a: " + "[" * 10_000, "TOO_DEEP"),
        ("a: " + "[" * 10_000 + "]" * 10_000, "TOO_DEEP"),
        ("- " * 20_000, "TOO_DEEP"),
        ("{a: " * 10_000, "TOO_DEEP"),
        ("a" * (10 << 20), "TOO_LARGE"),
        (b"a" * (10 << 20), "TOO_LARGE"),
        ("a: '" + "é" * 600_000 + "'", "TOO_LARGE"),
        ("a: [" + "1," * 300_000 + "]", "TOO_MANY_NODES"),
        ("a: &a 1\nb: [" + "*a," * 1001 + "]", "TOO_MANY_ALIASES"),
        ("a: &a [*a]", "ALIAS_CYCLE"),
        ("a: &a\n  b: *a", "ALIAS_CYCLE"),
        ("a: *nothing", "YAML_SYNTAX"),
        ("a: 1\n---\nb: 1", "MULTIPLE_DOCUMENTS"),
        ("a: b: c", "YAML_SYNTAX"),
        ("a: 'open", "YAML_SYNTAX"),
        ("a:\n\tb: 1", "YAML_SYNTAX"),
        ("", "EMPTY"),
        ("# only a comment", "EMPTY"),
        ("null", "EMPTY"),
        ("[1, 2]", "WRONG_TYPE"),
        ("text", "WRONG_TYPE"),
        ("? [a]\n: b", "KEY_TYPE"),
        ("? " + "k" * 2000 + "\n: b", "KEY_TYPE"),
        ("a: \x00", "YAML_CHARACTER"),
        ("a: \x1b[31m", "YAML_CHARACTER"),
        ("a: '\x08'", "YAML_CHARACTER"),
        ("a: \ud800", "YAML_CHARACTER"),
        (b"a: \xff", "NOT_UTF8"),
        ("a: !!python/object:os.system x", "TAG"),
        ("a: !!python/object/apply:os.system [id]", "TAG"),
        ("a: !custom {b: 1}", "TAG"),
        ("a: !!int x", "TAG"),
        ("a: !!binary aGk=", "TAG"),
        ("a: 1e999", "NUMBER_RANGE"),
        ("a: " + "9" * 5000, "NUMBER_RANGE"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isupper() else "",
)
def test_abuse_is_refused_by_name(text: str | bytes, code: str) -> None:
    assert refusal(text)[0] == code


def test_an_alias_bomb_is_refused_without_being_expanded() -> None:
    tracemalloc.start()
    try:
        assert refusal(alias_bomb())[0] == "TOO_MANY_NODES"
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_budget_of_bytes_can_be_moved() -> None:
    text = "a: " + "x" * 100
    assert refusal(text, LoadLimits(max_bytes=50))[0] == "TOO_LARGE"
    assert loaded(text, LoadLimits(max_bytes=200)) == {"a": "x" * 100}


def test_duplicate_keys_are_all_found_with_their_places() -> None:
    findings = Findings()
    load("a: 1\nb: {c: 1, c: 2}\na: 3\n'a': 4", LoadLimits(), findings)
    assert [(p.path, p.line, p.column) for p in findings.errors] == [("b.c", 2, 11), ("a", 3, 1), ("a", 4, 1)]


def test_aliases_within_the_budget_share_what_they_name() -> None:
    assert loaded("a: &x {k: [1, 2]}\nb: *x") == {
        "a": {"k": [1, 2]},
        "b": {"k": [1, 2]},
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read_and_left_out(encoding: str) -> None:
    assert loaded("naïve: ż".encode(encoding)) == {"naïve": "ż"}


def test_line_breaks_of_yaml_1_1_are_ordinary_characters() -> None:
    text = "a: x\x85y\nb: 'p\u2028q'\nc: \"\\N\\L\"  # \u2029"
    assert loaded(text) == {"a": "x\x85y", "b": "p\u2028q", "c": "\x85\u2028"}


def test_old_line_breaks_do_not_move_the_lines_of_errors() -> None:
    assert refusal("a: x\x85y\nb: [") == ("YAML_SYNTAX", 2, 5)


def test_a_tab_as_indentation_is_named() -> None:
    with pytest.raises(DefinitionError, match="tab"):
        load("a:\n\tb: 1", LoadLimits(), Findings())


@pytest.mark.parametrize("style", ["'{}'", '"{}"', "{}"])
def test_every_quoting_style_gives_the_same_text(style: str) -> None:
    assert loaded("a: " + style.format("plain words")) == {"a": "plain words"}


def test_agrees_with_pyyaml_where_both_versions_of_yaml_do() -> None:
    text = "a: [1, 2.5, true, null, text]\n"
    text += "b:\n  - c: |\n      lines\n      more\n    d: >\n      folded\n      text\n"
    assert loaded(text) == yaml.safe_load(text)


def test_json_escapes_of_characters_beyond_the_first_plane_are_joined() -> None:
    assert loaded(r'{"a": "\ud83d\ude00 \\ud83d\\ude00 \/"}') == {"a": "\U0001f600 \\ud83d\\ude00 /"}


def test_half_an_escaped_character_is_refused() -> None:
    assert refusal(r'{"a": "\ud83d"}')[0] == "YAML_SYNTAX"
