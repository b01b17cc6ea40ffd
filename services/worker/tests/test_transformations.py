"""Every transformation, with the rows that really land."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from .engine_bench import EngineBench, failure, outcome, rows, states
from .scripted_server import stage
from .stages import payload

FLIGHTS = """
  - {id: flights, values: [
      {id: 1, carrier: AA, delay: 10, dest: JFK}, {id: 2, carrier: AA, delay: 30, dest: LGA},
      {id: 3, carrier: UA, delay: null, dest: JFK}, {id: 4, carrier: XX, delay: 5, dest: EWR}]}
  - {id: airlines, values: [{carrier: AA, name: American}, {carrier: UA, name: United}]}
"""


OUT = "  - {id: out, input: t, connection: duck, table: result, mode: replace}\n"


async def land(bench: EngineBench, transformation: str, **fields: Any) -> list[dict[str, Any]]:
    """The rows that a transformation called `t` of the flights lands."""
    text = f"sources: {FLIGHTS}\ntransformations:\n  - {transformation}\nsinks:\n"
    result = await bench.run(text + OUT, **fields)
    assert outcome(result) == "COMPLETED", result.error
    return landed(bench)


def landed(bench: EngineBench) -> list[dict[str, Any]]:
    """The rows of the table `result` of the DuckDB file that is the target."""
    with duckdb.connect(bench.connections["duck"].path, read_only=True) as target:
        rows = target.execute("SELECT * FROM result")
        names = [column[0] for column in rows.description]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


@pytest.fixture(autouse=True)
def target(bench: EngineBench) -> None:
    bench.connect("duck", "duckdb", path=str(Path(bench.options.file_roots[0]) / "target.duckdb"))


CASES = [
    ("{id: t, type: filter, input: flights, condition: 'delay >= 10'}", "id", [1, 2]),
    (
        "{id: t, type: select, input: flights, columns: {hours: 'delay / 60.0'}}",
        "hours",
        [10 / 60, 0.5, None, 5 / 60],
    ),
    ("{id: t, type: select, input: flights, columns: [carrier]}", "carrier", ["AA", "AA", "UA", "XX"]),
    (
        "{id: t, type: rename, input: flights, columns: {carrier: airline}}",
        "airline",
        ["AA", "AA", "UA", "XX"],
    ),
    ("{id: t, type: cast, input: flights, columns: {id: VARCHAR}}", "id", ["1", "2", "3", "4"]),
    ("{id: t, type: cast, input: flights, columns: {dest: INTEGER}, on_error: 'null'}", "dest", [None] * 4),
    (
        "{id: t, type: aggregate, input: flights, group_by: [carrier], "
        "aggregates: {n: 'count(*)'}, having: 'count(*) > 1'}",
        "n",
        [2],
    ),
    ("{id: t, type: deduplicate, input: flights, keys: [carrier], order_by: ['id desc']}", "id", [2, 3, 4]),
    ("{id: t, type: union, inputs: [flights, flights]}", "id", [1, 1, 2, 2, 3, 3, 4, 4]),
    ("{id: t, type: union, inputs: [flights, flights], distinct: true}", "id", [1, 2, 3, 4]),
    (
        "{id: t, type: lookup_join, input: flights, lookup: airlines, on: [carrier], columns: {a: name}}",
        "a",
        ["American", "American", "United", None],
    ),
    (
        "{id: t, type: lookup_join, input: flights, lookup: airlines, on: [carrier], join: inner}",
        "name",
        ["American", "American", "United"],
    ),
    (
        "{id: t, type: sql_transform, inputs: [flights], sql: 'SELECT max(delay) AS worst FROM flights --'}",
        "worst",
        [30],
    ),
]


@pytest.mark.parametrize(("transformation", "column", "expected"), CASES)
async def test_a_transformation_lands_its_rows(
    bench: EngineBench, transformation: str, column: str, expected: list[Any]
) -> None:
    found = await land(bench, transformation)

    def key(value: Any) -> tuple[bool, Any]:
        return (value is None, value)

    assert sorted((row[column] for row in found), key=key) == pytest.approx(sorted(expected, key=key))


async def test_parameters_and_times_are_bound_as_literals(bench: EngineBench) -> None:
    text = """
parameters:
  airline: {type: string, required: true}
  least: {type: integer, default: 0}
  serial: {type: integer, default: 0}
sources: [{id: flights, values: [{carrier: "O'Hare", delay: 10}, {carrier: UA, delay: 20}]}]
transformations:
  - {id: t, type: sql_transform, inputs: [flights],
     sql: "SELECT *, epoch(${run.logical_date}) AS day, ${params.serial}::VARCHAR AS serial FROM flights
           WHERE carrier = ${params.airline} AND delay > ${params.least}"}
sinks: [{id: out, input: t, connection: duck, table: result}]
"""
    when = {"seconds": 1_750_000_000}

    result = await bench.run(text, parameters={"airline": "O'Hare", "serial": 10**25 + 1}, logical_date=when)

    assert outcome(result) == "COMPLETED", result.error
    (row,) = landed(bench)
    assert (row["carrier"], row["delay"]) == ("O'Hare", 10)
    assert row["day"] == 1_750_000_000
    assert row["serial"] == str(10**25 + 1)


async def test_rows_are_counted_for_each_task(bench: EngineBench) -> None:
    text = (
        f"sources: {FLIGHTS}"
        + """
transformations:
  - {id: late, type: filter, input: flights, condition: delay > 5}
  - {id: named, type: lookup_join, input: late, lookup: airlines, on: [carrier]}
sinks: [{id: out, input: named, connection: duck, table: result}]
"""
    )
    result = await bench.run(text)

    counted = {"flights": (0, 4), "airlines": (0, 2), "late": (4, 2), "named": (4, 2), "out": (2, 2)}
    assert rows(result) == counted
    (receipt,) = result.receipts
    assert (receipt.sink, receipt.rows, receipt.fence) == ("out", 2, 1)
    assert [column.name for column in receipt.columns] == ["id", "carrier", "delay", "dest", "name"]
    read = {source.task: [column.name for column in source.columns] for source in receipt.sources}
    assert read == {"flights": ["id", "carrier", "delay", "dest"], "airlines": ["carrier", "name"]}


async def test_a_lookup_whose_key_is_not_unique_fails_the_run(bench: EngineBench) -> None:
    text = """
sources:
  - {id: a, values: [{k: 1}]}
  - {id: b, values: [{k: 1, v: x}, {k: 1, v: y}]}
transformations: [{id: j, type: lookup_join, input: a, lookup: b, on: [k]}]
sinks: [{id: out, input: j, connection: duck, table: result}]
"""
    result = await bench.run(text)

    assert failure(result)[1:] == ("DATA", "j")
    assert "not unique" in result.error.message


@pytest.mark.parametrize(
    ("transformation", "code", "error_class"),
    [
        ("{id: t, type: cast, input: flights, columns: {dest: INTEGER}}", "VALUE_NOT_CONVERTIBLE", "DATA"),
        ("{id: t, type: select, input: flights, columns: [nothing]}", "COLUMN_NOT_FOUND", "CONFIGURATION"),
        ("{id: t, type: filter, input: flights, condition: 'nothing > 1'}", "SQL_INVALID", "CONFIGURATION"),
    ],
)
async def test_a_transformation_that_fails_says_where_and_why(
    bench: EngineBench, transformation: str, code: str, error_class: str
) -> None:
    text = f"sources: {FLIGHTS}\ntransformations:\n  - {transformation}\nsinks:\n"
    result = await bench.run(text + OUT)

    assert outcome(result) == "FAILED"
    assert failure(result) == (code, error_class, "t")
    with pytest.raises(duckdb.CatalogException):
        landed(bench)
    assert bench.options.temp_dir not in str(result)


ONE = "sources: [{id: a, values: [{x: 1}]}]"


@pytest.mark.parametrize(
    ("text", "task", "why"),
    [
        ("sources: [{id: a}]", "a", "the source names neither table nor query"),
        ("sources: [{id: a, connection: duck}]", "a", "the source names neither table nor query"),
        (f"{ONE}\nsinks: [{{id: b}}]", "b", "the sink names neither table nor path"),
        ("sinks: [{id: b, discard: true}]", "b", "reads nothing"),
        ("sinks: [{id: b, output: csv}]", "b", "reads nothing"),
        ("transformations: [{id: t, type: filter, where: x > 1}]", "t", "reads nothing"),
        ("quality_checks: [{id: q, type: row_count, min: 1}]", "q", "reads nothing"),
        (f"{ONE}\ntransformations: [{{id: t, type: sql_transform}}]", "t", "is not written yet"),
        (f"{ONE}\ntransformations: [{{id: t, type: filter}}]", "t", "is not written yet"),
    ],
)
async def test_what_a_definition_lacks_fails_its_task(
    bench: EngineBench, text: str, task: str, why: str
) -> None:
    result = await bench.run(text)

    assert failure(result) == ("DEFINITION_INCOMPLETE", "CONFIGURATION", task)
    assert why in result.error.message


ESCAPES = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM '{file}'",
    "SELECT content FROM read_text('{file}')",
    "SELECT * FROM glob('/etc/*')",
]


@pytest.mark.parametrize("sql", ESCAPES)
async def test_sql_cannot_leave_the_scratch(bench: EngineBench, tmp_path: Path, sql: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("a\ncanary-9000\n")
    harmless = payload(
        f"sources: {FLIGHTS}\ntransformations:\n"
        "  - {id: t, type: sql_transform, inputs: [flights], sql: 'SELECT 424242 FROM flights'}\n"
        f"sinks:\n{OUT}"
    )
    # The compiler would refuse it; the engine must not rely on that.
    evil = harmless.replace(b"SELECT 424242 FROM flights", sql.format(file=file).encode())
    assert evil != harmless

    result = await bench.work_off(stage(evil))

    assert failure(result)[1:] == ("CONFIGURATION", "t")
    assert "canary" not in str(result)


CHAIN = """
sources:
  - {id: a, values: [{k: "1", v: 10}, {k: "%s", v: 20}]}
  - {id: b, values: [{k: %s, name: one}%s]}
transformations:
  - {id: joined, type: lookup_join, input: a, lookup: b, on: [k]}
  - {id: renamed, type: rename, input: joined, columns: {v: value}}
  - {id: few, type: filter, input: renamed, condition: "value < 20"}
sinks: [{id: out, input: few, connection: duck, table: result}]
"""


async def test_each_task_of_a_chain_has_its_count_of_rows(bench: EngineBench) -> None:
    result = await bench.run(CHAIN % ("2", "'1'", ""))

    assert outcome(result) == "COMPLETED", result.error
    assert rows(result) == {
        "a": (0, 2),
        "b": (0, 1),
        "joined": (3, 2),
        "renamed": (2, 2),
        "few": (2, 1),
        "out": (1, 1),
    }
    assert landed(bench) == [{"k": "1", "value": 10, "name": "one"}]


async def test_a_value_that_cannot_be_compared_fails_although_a_later_filter_leaves_it_out(
    bench: EngineBench,
) -> None:
    result = await bench.run(CHAIN % ("not a number", "1", ""))

    assert failure(result) == ("VALUE_NOT_CONVERTIBLE", "DATA", "joined")
    assert states(result)["joined"] == "FAILED"


async def test_a_repeated_key_is_found_although_a_later_filter_leaves_it_out(bench: EngineBench) -> None:
    result = await bench.run(CHAIN % ("2", "'1'", ", {k: '2', name: two}, {k: '2', name: zwei}"))

    assert failure(result)[1:] == ("DATA", "joined")
    assert "not unique" in result.error.message
