"""What plans read and write, by the names of lineage."""

from headrace_definition.datasets import ConnectionPlace, datasets
from headrace_definition.testing import compiled

SALES = ConnectionPlace("1", "sales", "postgresql", host="db.internal", database="sales_db")
LAKE = ConnectionPlace("2", "lake", "duckdb", path="/data/lake.duckdb")
FOLDER = ConnectionPlace("3", "folder", "file", path="/data/in")
CONNECTIONS = {"sales": SALES, "lake": LAKE, "folder": FOLDER}


def named(sources: str, sinks: str = "{discard: true, input: a}") -> list[tuple[str, str | None, str]]:
    plan = compiled(f"sources: [{sources}]\nsinks: [{sinks}]\n").plan
    found = datasets(plan, CONNECTIONS)
    return [(each.kind, each.namespace, each.name) for each in (*found.sources, *found.sinks)]


def test_tables_have_database_schema_and_name() -> None:
    postgres = "postgres://db.internal:5432"
    assert named("{id: a, connection: sales, table: orders}") == [
        ("TABLE", postgres, "sales_db.public.orders")
    ]
    assert named("{id: a, connection: sales, table: raw.orders}") == [
        ("TABLE", postgres, "sales_db.raw.orders")
    ]
    assert named("{id: a, connection: lake, table: orders}") == [
        ("TABLE", "duckdb:/data/lake.duckdb", "lake.main.orders")
    ]


def test_a_query_reads_the_tables_that_it_names_but_not_its_own_subqueries() -> None:
    query = "WITH x AS (SELECT * FROM raw.a) SELECT * FROM x JOIN b ON x.id = b.id WHERE b.d = ${params.day}"
    source = f"{{id: a, connection: sales, query: '{query}'}}"
    text = f"parameters: {{day: {{type: date}}}}\nsources: [{source}]\nsinks: [{{discard: true}}]"
    found = datasets(compiled(text).plan, CONNECTIONS).sources
    assert {each.name for each in found} == {"sales_db.raw.a", "sales_db.public.b"}
    assert {each.task for each in found} == {"a"}


def test_files_lie_in_the_folder_of_their_connection() -> None:
    found = named("{id: a, connection: folder, path: x.csv}", "{input: a, path: s3://bucket/out/x.parquet}")
    assert found == [("FILE", "file", "/data/in/x.csv"), ("FILE", "s3://bucket", "out/x.parquet")]


def test_what_has_no_known_connection_keeps_the_words_of_the_definition() -> None:
    found = named("{id: a, connection: nowhere, table: orders}", "{input: a, connection: gone, path: x.csv}")
    assert found == [("TABLE", None, "nowhere.orders"), ("FILE", None, "gone/x.csv")]


def test_rows_written_in_place_are_a_source_and_a_discard_is_no_sink() -> None:
    assert named("{id: a, values: [{x: 1}]}") == [("VALUES", None, "a")]


def test_an_output_is_a_file_of_the_run_alone() -> None:
    assert named("{id: a, values: [{x: 1}]}", "{id: kept, input: a, output: csv}")[1:] == [
        ("FILE", None, "kept.csv")
    ]
