"""Plans: tasks, stages, engine, guarantees, and bytes that stay the same."""

from itertools import pairwise

import pytest
from headrace_definition import ConnectionDefaults, Plan, StagePayload, compile_definition, validate
from headrace_definition.plan import CheckTask, SinkTask, SourceTask, TransformTask
from headrace_definition.tasks import find_cycle, in_order
from headrace_definition.testing import compiled
from hypothesis import given
from hypothesis import strategies as st

FLIGHTS = """
sources:
  - {id: flights, path: flights.csv}
  - {id: airlines, connection: w, table: airlines}
transformations:
  - {id: joined, type: lookup_join, input: flights, lookup: airlines, on: [carrier]}
  - {id: kept, type: filter, input: joined, condition: dep_delay IS NOT NULL, materialize: true}
  - {id: grouped, type: aggregate, input: kept, group_by: [carrier], aggregates: {n: count(*)}}
quality_checks:
  - {id: whole, type: row_count, input: kept, min: 1}
  - {id: named, type: not_null, input: grouped, columns: [carrier], severity: warning}
sinks:
  - {id: detail, input: kept, connection: w, table: detail}
  - {id: totals, input: grouped, connection: w, table: totals, mode: replace}
"""


def test_tasks_come_after_what_they_read() -> None:
    plan = compiled(FLIGHTS).plan
    assert [task.key for task in plan.tasks] == [
        "flights", "airlines", "joined", "kept", "grouped", "whole", "named", "detail", "totals",
    ]  # fmt: skip


def test_a_materialised_task_ends_its_stage() -> None:
    stages = compiled(FLIGHTS).plan.stages
    assert [stage.key for stage in stages] == ["s1", "s2"]
    assert stages[0].tasks == ("flights", "airlines", "joined", "kept", "whole")
    assert stages[0].artifacts_out == ("kept",)
    assert stages[1].tasks == ("grouped", "named", "detail", "totals")
    assert (stages[1].depends_on, stages[1].artifacts_in) == (("s1",), ("kept",))


def test_parts_that_are_not_connected_are_stages_of_their_own() -> None:
    text = "sources: [{id: a, values: [{x: 1}]}, {id: b, values: [{x: 1}]}]\n"
    text += "sinks: [{id: p, input: a, discard: true}, {id: q, input: b, discard: true}]"
    assert [stage.tasks for stage in compiled(text).plan.stages] == [("a", "p"), ("b", "q")]


def test_rows_that_cross_levels_by_another_path_become_artifacts() -> None:
    text = """
sources: [{id: s, values: [{x: 1}]}]
transformations:
  - {id: a, type: filter, input: s, condition: x > 0, materialize: true}
  - {id: c, type: filter, input: s, condition: x > 1}
  - {id: b, type: union, inputs: [a, c]}
sinks: [{id: k, input: b, discard: true}]
"""
    first, second = compiled(text).plan.stages
    assert (first.tasks, first.artifacts_out) == (("s", "a", "c"), ("a", "c"))
    assert (second.tasks, second.artifacts_in) == (("b", "k"), ("a", "c"))


@pytest.mark.parametrize(
    ("sinks", "again"),
    [
        ("{id: k, input: b, connection: c, table: t, mode: merge, keys: [x]}", True),
        ("{id: k, input: b, discard: true}", True),
        ("{id: k, input: b, connection: c, table: t}", False),
        ("{id: k, input: b, output: csv}", False),
        (
            "{id: k, input: b, connection: c, table: t, mode: merge, keys: [x]}, "
            "{id: l, input: a, connection: c, table: u}",
            False,
        ),
    ],
)
def test_a_source_may_read_again_what_is_merged_everywhere(sinks: str, again: bool) -> None:
    text = f"""
sources: [{{id: s, connection: c, table: t, incremental: {{cursor: x}}}}, {{id: o, connection: c, table: o}}]
transformations:
  - {{id: a, type: filter, input: s, condition: x > 0, materialize: true}}
  - {{id: b, type: union, inputs: [a, o]}}
sinks: [{sinks}]
"""
    stages = compiled(text).plan.stages
    assert [key for stage in stages for key in stage.rereads] == (["s"] if again else [])


def test_a_stage_resumes_the_sinks_that_what_is_new_comes_to_later() -> None:
    text = """
sources: [{id: s, connection: c, table: t, incremental: {cursor: x}}, {id: o, connection: c, table: o}]
transformations:
  - {id: a, type: filter, input: s, condition: x > 0, materialize: true}
  - {id: b, type: filter, input: o, condition: x > 0, materialize: true}
  - {id: asked, type: wait_for_signal, input: a, data: {where: {type: string, required: true}}}
sinks:
  - {id: here, input: s, connection: c, table: here}
  - {id: later, input: a, connection: d, table: later}
  - {id: kept, input: a, output: csv}
  - {id: told, input: a, connection: e, table: "${signals.asked.where}"}
  - {id: other, input: b, connection: f, table: other}
"""
    plan = compiled(text).plan

    resumed = {stage.key: stage.resumes for stage in plan.stages if stage.resumes}
    reading = next(stage for stage in plan.stages if "s" in stage.tasks)

    assert resumed == {reading.key: ("later",)}
    assert reading.connections == ("c", "d")
    payload = StagePayload.from_json(plan.stage_payload(reading.key))
    assert [task.key for task in payload.later_sinks] == ["later"]


def test_a_stages_payload_is_what_a_worker_needs() -> None:
    plan = compiled(FLIGHTS).plan
    payload = StagePayload.from_json(plan.stage_payload("s2"))
    assert [task.key for task in payload.tasks] == ["grouped", "named", "detail", "totals"]
    assert payload.stage == plan.stages[1]
    assert payload.to_json() == plan.stage_payload("s2")
    assert isinstance(payload.task("grouped"), TransformTask)
    with pytest.raises(KeyError):
        payload.task("flights")
    with pytest.raises(KeyError):
        plan.stage_payload("s9")


def test_plans_survive_json_and_equal_texts_give_equal_bytes() -> None:
    plan = compiled(FLIGHTS).plan
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()
    assert compiled(FLIGHTS).plan.to_json() == plan.to_json()
    assert compiled("# a comment\n" + FLIGHTS).plan.to_json() == plan.to_json()


def test_a_plan_of_another_format_is_refused() -> None:
    data = compiled(FLIGHTS).plan.to_json()
    with pytest.raises(ValueError, match="format"):
        Plan.from_json(data.replace(b'"format":1', b'"format":2'))


def test_kinds_of_tasks() -> None:
    kinds = {task.key: (type(task), task.type) for task in compiled(FLIGHTS).plan.tasks}
    assert kinds["flights"] == (SourceTask, "file")
    assert kinds["airlines"] == (SourceTask, "database")
    assert kinds["joined"] == (TransformTask, "lookup_join")
    assert kinds["named"] == (CheckTask, "not_null")
    assert kinds["totals"] == (SinkTask, "database")


def test_a_discard_sink_without_a_key_is_part_of_its_input() -> None:
    plan = compiled("sources: [{id: noop, values: [{x: 1}]}]\nsinks: [{discard: true}]").plan
    assert [(task.key, task.discards) for task in plan.tasks if isinstance(task, SourceTask)] == [
        ("noop", True)
    ]
    assert len(plan.tasks) == 1


def test_a_discard_sink_with_a_key_is_a_task() -> None:
    plan = compiled("sources: [{id: noop, values: [{x: 1}]}]\nsinks: [{id: nowhere, discard: true}]").plan
    assert [task.key for task in plan.tasks] == ["noop", "nowhere"]


def test_an_output_is_a_place_of_its_own() -> None:
    text = "source: {values: [{x: 1}]}\nsinks: [{output: PARQUET}]"
    made = compile_definition(text, defaults=ConnectionDefaults(target="warehouse"))
    task = made.plan.tasks[-1]
    assert isinstance(task, SinkTask)
    assert (task.key, task.type, task.config.output, task.config.connection) == (
        "load",
        "output",
        "parquet",
        None,
    )
    assert not made.warnings
    assert made.plan.connections == ()


@pytest.mark.parametrize(
    ("text", "engine", "reason"),
    [
        ("source: {values: [{x: 1}]}", "JDBC", "all sources end"),
        ("engine: spark\nsource: {values: [{x: 1}]}", "SPARK", "the definition says"),
        ("source: {connection: c, table: t, streaming: true}", "FLINK", "never ends"),
        ("source: {connector: kafka, stream: t}", "FLINK", "never ends"),
        ("source: {connection: c, table: t, expected_bytes: 5000000000000}", "SPARK", "bytes"),
        ("source: {values: [{x: 1}]}\nexecution: {parallelism: 64}", "SPARK", "parallelism"),
    ],
)
def test_the_engine_and_why(text: str, engine: str, reason: str) -> None:
    plan = compiled(text + "\nsinks: [{discard: true}]").plan
    assert plan.engine == engine
    assert reason in plan.engine_reason


@pytest.mark.parametrize(
    ("sink", "kind", "guarantee"),
    [
        ("{connection: c, table: t}", "postgresql", "EXACTLY_ONCE"),
        ("{connection: c, table: t}", "teradata", "AT_LEAST_ONCE"),
        ("{connection: c, table: t}", None, "AT_LEAST_ONCE"),
        ("{path: o.csv}", None, "EXACTLY_ONCE"),
        ("{id: d, discard: true}", None, "EXACTLY_ONCE"),
        ("{output: csv}", None, "EXACTLY_ONCE"),
    ],
)
def test_what_a_sink_can_promise(sink: str, kind: str | None, guarantee: str) -> None:
    types = {"c": kind} if kind else None
    task = compiled(f"source: {{values: [{{x: 1}}]}}\nsinks: [{sink}]", connection_types=types).plan.tasks[-1]
    assert isinstance(task, SinkTask)
    assert task.guarantee == guarantee


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("sources: [{id: a, values: [{x: 1}]}]\nsinks: [{id: k, discard: true}]", {"k": ("a",)}),
        (
            "sources: [{id: a, values: [{x: 1}]}]\n"
            "transformations: [{id: p, type: select}, {id: q, type: select}]\n"
            "quality_checks: [{id: c, type: row_count, min: 1}]\nsinks: [{id: k, discard: true}]",
            {"p": ("a",), "q": ("p",), "c": ("q",), "k": ("q",)},
        ),
        (
            "sources: [{id: a, values: [{x: 1}]}, {id: b, values: [{x: 1}]}]\n"
            "transformations: [{id: p, type: select}, {id: q, type: union, inputs: [p, b]}]\n"
            "sinks: [{id: k, discard: true}]",
            {"p": ("a",), "q": ("p", "b"), "k": ("q",)},
        ),
        (
            "sources: [{id: a, values: [{x: 1}]}, {id: b, values: [{x: 1}]}]\n"
            "sinks: [{id: j, input: a, discard: true}, {id: k, discard: true}]",
            {"j": ("a",), "k": ("b",)},
        ),
    ],
)
def test_inputs_are_inferred_where_one_fits(text: str, inputs: dict[str, tuple[str, ...]]) -> None:
    plan = compile_definition(text).plan
    assert {task.key: task.inputs for task in plan.tasks if task.inputs} == inputs


def test_where_more_than_one_fits_the_author_is_asked() -> None:
    text = "sources: [{id: a, values: [{x: 1}]}, {id: b, values: [{x: 1}]}]\nsinks: [{id: k, discard: true}]"
    found = validate(text).errors
    assert [(p.code, p.path) for p in found] == [("MISSING_INPUT", "sinks[0].input")]
    assert "a, b all fit" in found[0].message


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30)
    )
)
def test_a_graph_has_an_order_or_a_cycle(edges: list[tuple[int, int]]) -> None:
    inputs: dict[str, tuple[str, ...]] = {f"t{i}": () for i in range(12)}
    for reader, read in edges:
        inputs[f"t{reader}"] += (f"t{read}",)
    cycle = find_cycle(inputs)
    if cycle is None:
        order = in_order(inputs)
        assert sorted(order) == sorted(inputs)
        assert all(order.index(read) < order.index(key) for key in order for read in inputs[key])
    else:
        assert cycle[0] == cycle[-1]
        assert all(before in inputs[after] for before, after in pairwise(cycle))


@given(st.data())
def test_stages_never_wait_for_each_other_in_a_circle(data: st.DataObject) -> None:
    # given a random definition of selects and unions, some of them materialised
    lines = ["sources: [{id: t0, values: [{x: 1}]}]", "transformations:"]
    for index in range(1, data.draw(st.integers(2, 12))):
        inputs = data.draw(st.lists(st.integers(0, index - 1), min_size=1, max_size=3, unique=True))
        keys = ", ".join(f"t{each}" for each in inputs)
        kept = "true" if data.draw(st.booleans()) else "false"
        lines.append(f"- {{id: t{index}, type: union, inputs: [{keys}], materialize: {kept}}}")
    plan = compiled("\n".join(lines)).plan
    stage_of = {key: stage.key for stage in plan.stages for key in stage.tasks}
    # then every task is in one stage, stages depend on earlier ones, and all that crosses is an artifact
    assert sorted(stage_of) == sorted(task.key for task in plan.tasks)
    seen: set[str] = set()
    for stage in plan.stages:
        assert set(stage.depends_on) <= seen
        seen.add(stage.key)
        for key in stage.artifacts_in:
            assert key in plan.stage(stage_of[key]).artifacts_out
    for task in plan.tasks:
        for key in task.inputs:
            assert stage_of[key] == stage_of[task.key] or key in plan.stage(stage_of[task.key]).artifacts_in
        if isinstance(task, TransformTask) and task.config.materialize:
            readers = [other for other in plan.tasks if task.key in other.inputs]
            assert all(stage_of[reader.key] != stage_of[task.key] for reader in readers)
