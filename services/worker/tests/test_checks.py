"""Every quality check: what it lets pass, what it fails, and what it says."""

import json
from pathlib import Path

import pytest

from .engine_bench import EngineBench, failure, outcome, states

SOURCE = """
sources:
  - {id: rows, schema: {at: DATE}, values: [
      {id: 1, code: a, n: 5, at: "2020-01-01"}, {id: 2, code: b, n: null, at: "2020-01-02"},
      {id: 2, code: z, n: 500, at: "2020-01-03"}]}
  - {id: codes, values: [{code: a}, {code: b}]}
"""

FAILING = [
    ("type: not_null, columns: [n]", 1),
    ("type: unique, columns: [id]", 1),
    ("type: accepted_values, column: code, values: [a, b]", 1),
    ("type: range, column: n, min: 1, max: 100", 1),
    ("type: row_count, min: 4", 1),
    ("type: freshness, column: at, max_age: 1d", 1),
    ("type: referential, columns: [code], to: codes", 1),
    ("type: sql, sql: 'SELECT * FROM rows WHERE n > 4'", 2),
]
PASSING = [
    "type: not_null, columns: [id, code]",
    "type: unique, columns: [id, code]",
    "type: accepted_values, column: code, values: [a, b, z]",
    "type: range, column: n, min: 5, max: 500",
    "type: row_count, min: 3, max: 3",
    "type: freshness, column: at, max_age: 36000d",
    "type: sql, sql: 'SELECT * FROM rows WHERE n > 1000'",
    "type: not_null, columns: [n], max_violations: 1",
    "type: not_null, columns: [n], max_ratio: 0.34",
]


def definition(check: str) -> str:
    """Rows, one check of them, and a target that must stay untouched where it fails."""
    return f"""{SOURCE}
quality_checks: [{{id: check, input: rows, {check}}}]
sinks: [{{id: out, input: rows, connection: lite, table: landed}}]
"""


@pytest.fixture(autouse=True)
def target(bench: EngineBench) -> Path:
    path = Path(bench.options.file_roots[0]) / "target.sqlite"
    bench.connect("lite", "sqlite", path=str(path))
    return path


@pytest.mark.parametrize(("check", "violations"), FAILING)
async def test_an_error_check_fails_the_run_before_the_target_is_touched(
    bench: EngineBench, check: str, violations: int
) -> None:
    result = await bench.run(definition(check))

    assert outcome(result) == "FAILED"
    assert failure(result) == ("QUALITY_CHECK_FAILED", "DATA", "check")
    assert result.error.details["violations"] == str(violations)
    assert result.error.details["rows"] == "3"
    found = states(result)
    assert (found["rows"], found["check"], found["out"]) == ("COMPLETED", "FAILED", "PENDING")
    assert not result.receipts


@pytest.mark.parametrize(("check", "violations"), FAILING)
async def test_a_warning_check_lets_the_run_complete_and_says_so(
    bench: EngineBench, check: str, violations: int
) -> None:
    result = await bench.run(definition(check + ", severity: warning"))

    assert outcome(result) == "COMPLETED"
    (warning,) = result.warnings
    assert (warning.task, warning.code) == ("check", "QUALITY_CHECK_FAILED")
    assert warning.details["violations"] == str(violations)
    assert [(receipt.sink, receipt.rows) for receipt in result.receipts] == [("out", 3)]


@pytest.mark.parametrize("check", PASSING)
async def test_a_check_that_holds_says_nothing(bench: EngineBench, check: str) -> None:
    result = await bench.run(definition(check))

    assert outcome(result) == "COMPLETED", result.error
    assert not result.warnings
    assert states(result)["check"] == "COMPLETED"


async def test_the_details_show_some_of_the_violating_rows(bench: EngineBench) -> None:
    result = await bench.run(definition("type: not_null, columns: [n]"))

    (row,) = json.loads(result.error.details["sample"])
    assert row["id"] == 2
    assert row["code"] == "b"


async def test_all_failed_checks_are_told_at_once(bench: EngineBench) -> None:
    text = f"""{SOURCE}
quality_checks:
  - {{id: first, type: not_null, input: rows, columns: [n]}}
  - {{id: second, type: unique, input: rows, columns: [id]}}
sinks: [{{id: out, input: rows, connection: lite, table: landed}}]
"""
    result = await bench.run(text)

    found = states(result)
    assert (found["first"], found["second"], found["out"]) == ("FAILED", "FAILED", "PENDING")
    assert result.failed_task == "first"
