"""Tasks that wait for signals: in every spelling, in the plan, and what is wrong about them."""

import pytest
from headrace_definition import Definition, Plan, to_yaml
from headrace_definition.testing import compiled, error_codes, warning_codes

CANONICAL = """
sources: [{id: orders, values: [{x: 1}]}]
transformations:
  - {id: large, type: filter, input: orders, condition: x > 0}
  - id: release
    type: wait_for_signal
    input: large
    timeout: 2d
    on_timeout: cancel
    data: {approved: {type: boolean, required: true}, reason: {type: string}}
sinks: [{id: load, input: release, output: csv}]
"""
MAPPINGS = """
sources: {orders: {values: [{x: 1}]}}
transformations:
  large: {type: filter, condition: x > 0}
  release:
    type: approval
    timeout: 172800
    onTimeout: CANCEL
    data: {approved: {type: boolean, required: true}, reason: string}
sinks: {load: {output: csv}}
"""
LISTS = """
sources: [{name: orders, values: [{x: 1}]}]
transforms:
  - {name: large, where: x > 0}
  - type: wait-for-signal
    name: release
    from: large
    timeout: 48h
    on_timeout: cancel
    fields: [{name: approved, type: boolean, required: true}, {name: reason}]
destinations: [{name: load, type: output, format: csv}]
"""
GRAPH = """
nodes:
  - {id: orders, nodeType: source, config: {values: [{x: 1}]}}
  - {id: large, nodeType: filter, config: {condition: x > 0}}
  - id: release
    nodeType: wait_for_approval
    config:
      {name: release, timeout: PT48H, on_timeout: cancel,
       schema: {approved: {type: boolean, required: true}, reason: string}}
  - {id: load, nodeType: target, config: {output: csv}}
edges: [{source: orders, target: large}, {source: large, target: release}, {source: release, target: load}]
"""
SINGLE = """
source: {name: orders, values: [{x: 1}]}
transform:
  - {name: large, where: x > 0}
  - {type: signal, name: release, timeout: 2d, on_timeout: cancel,
     data: {approved: {type: boolean, required: true}, reason: string}}
target: {name: load, type: output, format: csv}
"""
WRAPPED = f"definition:\n{SINGLE.replace(chr(10), chr(10) + '  ')}"


def meaning(text: str) -> Definition:
    return compiled(text).definition.model_copy(update={"layout": None, "name": None})


def staged(plan: Plan) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The tasks of each stage, and the stages that it comes after."""
    return [(stage.tasks, stage.depends_on) for stage in plan.stages]


@pytest.mark.parametrize("text", [MAPPINGS, LISTS, GRAPH, SINGLE, WRAPPED])
def test_every_spelling_means_the_same(text: str) -> None:
    assert meaning(text) == meaning(CANONICAL)


def test_the_canonical_text_means_the_same_too() -> None:
    for text in (CANONICAL, CANONICAL.replace("id: release\n", "id: release\n    name: go\n")):
        assert meaning(to_yaml(compiled(text).definition)) == meaning(text)


def test_a_wait_is_a_stage_that_lends_its_name_to_the_rows_before_it() -> None:
    plan = compiled(CANONICAL).plan

    assert staged(plan) == [(("orders", "large"), ()), (("release",), ("s1",)), (("load",), ("s1", "s2"))]
    first, wait, last = plan.stages
    assert (first.artifacts_out, first.keep_seconds) == (("large",), 2 * 86400)
    assert (wait.artifacts_in, wait.artifacts_out) == ((), ())
    assert (last.artifacts_in, last.held_rows) == (("release",), {"release": "large"})


def test_what_uses_a_signal_waits_for_it() -> None:
    text = CANONICAL.replace(
        "input: release, output: csv", "input: large, path: '${signals.release.reason}.csv'"
    )
    plan = compiled(text).plan

    assert staged(plan)[2] == (("load",), ("s1", "s2"))
    assert (plan.stages[2].artifacts_in, plan.stages[2].signals) == (("large",), ("release",))
    assert b'"signals":{"release":{"approved"' in plan.stage_payload("s3")
    assert b"signals" not in plan.stage_payload("s1")


def test_a_gate_holds_no_rows_and_comes_after_what_it_names() -> None:
    plan = compiled("""
sources:
  - {id: raw, values: [{x: 1}]}
  - {id: looked_at, values: [{x: 1}], depends_on: go}
transformations: [{id: go, type: wait_for_signal, after: [staged]}]
sinks: [{id: staged, input: raw, output: csv}, {id: final, input: looked_at, output: json}]
""").plan

    assert staged(plan) == [
        (("raw", "staged"), ()),
        (("go",), ("s1",)),
        (("looked_at", "final"), ("s2",)),
    ]
    assert not any(stage.artifacts_out for stage in plan.stages)


def test_waits_in_a_row_hold_the_same_rows() -> None:
    second = "  - {id: again, type: wait_for_signal, input: release, timeout: 1d}\nsinks"
    plan = compiled(
        CANONICAL.replace("sinks", second).replace("input: release, output", "input: again, output")
    ).plan

    assert [stage.tasks for stage in plan.stages][1:] == [("release",), ("again",), ("load",)]
    assert plan.stages[3].held_rows == {"again": "large"}
    assert (plan.stages[0].keep_seconds, plan.stages[3].depends_on) == (3 * 86400, ("s1", "s3"))


WAIT = "source: {values: [{x: 1}]}\ntransform: [{type: wait_for_signal, name: go%s}]\ntarget: {output: csv}\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (WAIT % ", on_timeout: explode", "INVALID_VALUE"),
        (WAIT % ", timeout: 0", "INVALID_VALUE"),
        (WAIT % ", timeout: soon", "INVALID_VALUE"),
        (WAIT % ", data: {ok: truth}", "INVALID_VALUE"),
        (WAIT % ", data: {n: {type: integer, default: many}}", "FIELD_VALUE"),
        (WAIT % ", data: {api_token: {required: true}}", "SECRET_FIELD"),
        (WAIT % ", after: [nobody]", "UNDEFINED_TASK"),
        (WAIT % ", data: {ok: boolean}, proceed_if: {fine: true}", "UNDECLARED_FIELD"),
        (WAIT % ", data: {ok: boolean}, proceed_if: {ok: perhaps}", "FIELD_VALUE"),
        (WAIT % ", data: {ok: boolean}, proceed_if: {}", "INVALID_VALUE"),
        (WAIT % ", sql: SELECT 1", "UNKNOWN_KEY"),
        (WAIT % "}, {type: wait_for_signal, id: other, signal: go", "DUPLICATE_SIGNAL"),
        (WAIT % ", input: extract, after: [load]", "CYCLE"),
        (WAIT.replace("csv", "csv, input: go") % ", after: [extract]", "INVALID_INPUT"),
        (WAIT.replace("csv", "csv, path: '${signals.gone.n}'") % "", "UNDECLARED_SIGNAL"),
        (WAIT.replace("x: 1", "x: '${signals.go}'") % "", "PLACEHOLDER"),
        (
            WAIT % ", data: {n: integer}" + "notifications: {type: EMAIL, target: '${signals.go.n}'}",
            "PLACEHOLDER",
        ),
    ],
)
def test_mistakes_are_told(text: str, code: str) -> None:
    assert code in error_codes(text)


def test_nothing_is_said_of_a_wait_that_is_as_it_should_be() -> None:
    for text in (CANONICAL, MAPPINGS, LISTS, GRAPH, SINGLE, WAIT % ""):
        assert (error_codes(text), warning_codes(text)) == ([], [])
