"""Columns traced to the sources."""

from headrace_definition import column_lineage
from headrace_definition.lineage import query_lineage
from headrace_definition.testing import compiled

SOURCES = """
sources:
  - {id: orders, connection: w, table: orders}
  - {id: customers, values: [{id: 1, Name: Ann}]}
  - {id: rates, path: rates.csv, columns: [currency, rate]}
transformations:
"""


def traced(*lines: str) -> dict[str, set[str]]:
    """Origins of each column, as `task.column`, of the definition with these transformations."""
    plan = compiled(SOURCES + "\n".join(lines)).plan
    found = column_lineage(plan).columns
    return {f"{c.task}.{c.column}": {f"{o.task}.{o.column}" for o in c.origins} for c in found}


def test_built_in_transformations() -> None:
    found = traced(
        "- {id: j, type: lookup_join, input: orders, lookup: customers, on: {customer: id},",
        "   columns: {who: name}}",
        "- {id: s, type: select, input: j, columns: {who: who, total: price * count, one: '1'}}",
        "- {id: r, type: rename, input: s, columns: {who: buyer}}",
        "- {id: f, type: filter, input: r, condition: total > 0}",
        "- {id: g, type: aggregate, input: f, group_by: [buyer], aggregates: {spent: sum(total)}}",
        "- {id: u, type: union, inputs: [g, customers]}",
    )
    assert found["j.who"] == {"customers.Name"}
    assert found["s.total"] == {"orders.price", "orders.count"}
    assert found["s.one"] == set()
    assert found["f.buyer"] == {"customers.Name"}
    assert found["g.spent"] == {"orders.price", "orders.count"}
    assert found["u.Name"] == {"customers.Name"}


def test_sql() -> None:
    found = traced(
        "- id: a",
        "  sql: |",
        "    SELECT o.id, c.name AS Who, upper(name) AS loud",
        "    FROM orders o JOIN customers c ON o.customer = c.id",
        '- {id: b, type: sql_transform, sql: "SELECT *, Who || loud AS both_ FROM a"}',
        "- id: c",
        "  sql: WITH x AS (SELECT rate AS r FROM rates) SELECT max(r) AS top FROM x",
        "- id: d",
        "  sql: SELECT Name FROM customers UNION ALL SELECT currency FROM rates",
    )
    assert found["a.id"] == {"orders.id"}
    assert found["a.Who"] == {"customers.Name"}
    assert found["a.loud"] == {"customers.Name"}
    assert found["b.Who"] == found["b.both_"] == {"customers.Name"}
    assert found["c.top"] == {"rates.rate"}
    assert found["d.Name"] == {"customers.Name", "rates.currency"}


def test_placeholders_do_not_disturb() -> None:
    found = traced(
        "- id: a",
        "  sql: SELECT rate * ${params.f} AS r FROM rates WHERE rate > ${params.f}",
        "parameters: {f: 2}",
    )
    assert found["a.r"] == {"rates.rate"}


def test_what_cannot_be_traced_is_known_by_table() -> None:
    plan = compiled(
        SOURCES
        + '- {id: a, type: sql_transform, sql: "SELECT * FROM orders"}\n'
        + '- {id: p, type: sql_transform, sql: "PIVOT a ON x USING sum(y)"}\n'
        + "sinks: [{id: k, input: p, discard: true}]"
    ).plan
    lineage = column_lineage(plan)
    assert [c for c in lineage.columns if c.task in ("a", "p", "k")] == []
    assert lineage.tables["k"] == ("orders",)


def test_names_pass_through_a_star_over_unknown_columns() -> None:
    found = traced(
        '- {id: a, type: sql_transform, sql: "SELECT * FROM orders"}',
        "- {id: s, type: select, input: a, columns: [total]}",
    )
    assert found["s.total"] == {"orders.total"}


def test_sinks_have_the_columns_of_their_input() -> None:
    found = traced(
        "- {id: f, type: filter, input: customers, condition: id > 0}",
        "sinks: [{id: k, discard: true, input: f}]",
    )
    assert found["k.Name"] == {"customers.Name"}


def test_what_a_source_was_found_to_have_closes_it() -> None:
    text = (
        SOURCES
        + "- {id: t, type: sql_transform, sql: SELECT * FROM orders}\n"
        + "sinks: [{id: out, input: t, path: o.csv}]"
    )
    found = column_lineage(compiled(text).plan, {"orders": ["id", "price"]}).columns
    assert {c.column: {o.column for o in c.origins} for c in found if c.task == "out"} == {
        "id": {"id"},
        "price": {"price"},
    }


def test_the_columns_of_a_query_come_from_the_columns_of_its_tables() -> None:
    found = query_lineage(
        "SELECT o.id, o.price * r.rate AS total, upper(name) AS name FROM sales.orders o "
        "JOIN rates r ON r.day = o.day"
    )
    traced = {column: {f"{o.task}.{o.column}" for o in origins} for column, origins in found.items()}
    assert traced["id"] == {"sales.orders.id"}
    assert traced["total"] == {"sales.orders.price", "rates.rate"}
    assert traced["name"] == set()  # nobody knows which of the two tables has it
    assert query_lineage("SELECT a.x FROM one.t a JOIN two.t b ON true") == {}
    assert query_lineage("SELECT * FROM orders") == {}
