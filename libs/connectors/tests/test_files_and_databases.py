"""Files, SQLite, DuckDB and inline values: round trips, precise refusals, modes, and what each ledger
promises."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import duckdb
import pytest
from headrace_connectors.api import (
    Connection,
    ConnectorError,
    Environment,
    ErrorClass,
    FencedOut,
    Incremental,
    LoadKey,
    PartitionRange,
    Receipt,
    Scratch,
    SinkSpec,
    SourceSpec,
    export_parquet,
    import_parquet,
    list_tables,
    open_sink,
    open_source,
)
from headrace_connectors.api import test_connection as probe_connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEY = LoadKey("run-1", "load")
Kind = Literal["sqlite", "duckdb"]

VALUES = {
    "BIGINT": "9223372036854775807",
    "HUGEINT": "170141183460469231731687303715884105727",
    "UBIGINT": "18446744073709551615",
    "DECIMAL(10,2)": "-12345678.90",
    "DECIMAL(38,10)": "1234567890123456789012345678.0123456789",
    "DOUBLE": "0.1",
    "FLOAT": "1.1",
    "BOOLEAN": "true",
    "VARCHAR": 'a "q" , \n\r\n\t żółć \\ ',
    "BLOB": "\\x00\\xFFa",
    "DATE": "0044-03-15 (BC)",
    "TIME": "24:00:00",
    "TIMESTAMP": "2024-02-29 23:59:59.999999",
    "TIMESTAMP WITH TIME ZONE": "2024-02-29 23:59:59.999999+00",
    "INTERVAL": "1 month -2 days 3000000:00:00.5",
    "UUID": "00000000-0000-0000-0000-00000000000a",
    "JSON": '{"b":1.5,"a":[null,"x"]}',
    "TIME WITH TIME ZONE": "12:00:00+02:30",
    "BIT": "101",
}


def place(kind: Kind, root: Path) -> Connection:
    return Connection("f", "file base", kind, path=str(root / f"base.{kind}"))


async def move_in(
    spec: SinkSpec,
    connection: Connection | None,
    environment: Environment,
    scratch: Scratch,
    key: LoadKey = KEY,
    relation: str = "rows",
    fence: int = 1,
) -> Receipt:
    sink = await open_sink(spec, connection, environment)
    try:
        found = await sink.claim(key, fence)
        if found is not None:
            return found
        await sink.stage(scratch, relation)
        return await sink.commit(key, fence, b"cursor")
    finally:
        await sink.close()


async def move_out(
    spec: SourceSpec,
    connection: Connection | None,
    environment: Environment,
    scratch: Scratch,
    relation: str = "back",
) -> Any:
    source = await open_source(spec, connection, environment)
    try:
        return await source.load(scratch, relation)
    finally:
        await source.close()


async def rows_of(scratch: Scratch, relation: str) -> list[tuple[object, ...]]:
    names = [column.name for column in await scratch.columns(relation)]
    listed = ", ".join(f'CAST("{name}" AS VARCHAR)' for name in names)
    return await scratch.fetch(f"SELECT {listed} FROM {relation} ORDER BY ALL")


async def make_values(scratch: Scratch, leave_out: Sequence[str] = ()) -> dict[str, str]:
    kinds = [kind for kind in VALUES if kind not in leave_out]
    await scratch.execute(
        "CREATE TABLE rows (" + ", ".join(f"v{i} {kind}" for i, kind in enumerate(kinds)) + ")"
    )
    marks = ", ".join(f"CAST(? AS {kind})" for kind in kinds)
    await scratch.execute(f"INSERT INTO rows VALUES ({marks})", [VALUES[kind] for kind in kinds])
    await scratch.execute("INSERT INTO rows (v0) VALUES (NULL)")
    return {f"v{i}": kind for i, kind in enumerate(kinds)}


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_every_type_survives_a_database_file(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    schema = await make_values(scratch)
    await move_in(SinkSpec(table="t"), place(kind, root), environment, scratch)
    await move_out(SourceSpec(table="t"), place(kind, root), environment, scratch)
    assert await rows_of(scratch, "back") == await rows_of(scratch, "rows")
    found = {column.name: column.type for column in await scratch.columns("back")}
    assert {name for name in schema if found[name] != schema[name]} <= ({"v6"} if kind == "sqlite" else set())


@pytest.mark.parametrize(
    ("form", "leave_out"),
    [("csv", ()), ("json", ()), ("parquet", ("INTERVAL", "TIME WITH TIME ZONE", "BIT", "HUGEINT"))],
)
async def test_every_type_survives_a_file_with_a_declared_schema(
    form: Any, leave_out: Sequence[str], root: Path, environment: Environment, scratch: Scratch
) -> None:
    schema = await make_values(scratch, leave_out)
    await move_in(SinkSpec(path="out/t", format=form, mode="replace"), None, environment, scratch)
    declared = {name: kind for name, kind in schema.items() if form != "parquet"}
    await move_out(SourceSpec(path="out/t", format=form, schema=declared), None, environment, scratch)
    assert await rows_of(scratch, "back") == await rows_of(scratch, "rows")


async def test_every_type_survives_an_artifact(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    await make_values(scratch)
    await scratch.execute(
        "CREATE TABLE nested AS SELECT *, [1, NULL] AS l, {'a': 1.5::DECIMAL(5,2)} AS s FROM rows"
    )
    staged = await export_parquet(scratch, "nested", str(root / "a" / "stage.parquet"))
    result = await import_parquet(scratch, "back", str(root / "a" / "stage.parquet"))
    assert (staged.rows, result.rows) == (2, 2)
    assert await rows_of(scratch, "back") == await rows_of(scratch, "nested")
    assert await scratch.columns("back") == await scratch.columns("nested")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
tables = st.lists(
    st.tuples(
        st.none() | texts,
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.decimals(-(10**8), 10**8, allow_nan=False, allow_infinity=False, places=3),
    ),
    max_size=8,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables)
@pytest.mark.parametrize("form", ["csv", "json", "parquet", "sqlite", "duckdb"])
def test_any_rows_come_back_as_they_went(
    form: Any, environment: Environment, root: Path, rows: list[tuple[Any, ...]]
) -> None:
    schema = {"s": "VARCHAR", "i": "BIGINT", "f": "DOUBLE", "d": "DECIMAL(20,3)"}

    async def trip() -> None:
        async with await Scratch.open(environment) as scratch:
            body = ", ".join(f"{name} {kind}" for name, kind in schema.items())
            await scratch.execute(f"CREATE TABLE rows ({body})")
            for text, whole, real, exact in rows:
                zero = 0.0 if form == "sqlite" and real == 0 else real  # SQLite has no negative zero
                await scratch.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", [text, whole, zero, exact])
            if form in ("sqlite", "duckdb"):
                await move_in(
                    SinkSpec(table="t", mode="replace"),
                    place(form, root),
                    environment,
                    scratch,
                    LoadKey(str(uuid.uuid4()), "x"),
                )
                await move_out(SourceSpec(table="t"), place(form, root), environment, scratch)
            else:
                spec = SinkSpec(path="t." + form, mode="replace")
                await move_in(spec, None, environment, scratch, LoadKey(str(uuid.uuid4()), "x"), fence=1)
                declared = {} if form == "parquet" else schema
                await move_out(SourceSpec(path="t." + form, schema=declared), None, environment, scratch)
            assert await rows_of(scratch, "back") == await rows_of(scratch, "rows")

    asyncio.run(trip())
    for path in root.iterdir():
        if path.is_file():
            path.unlink()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(
        texts | st.sampled_from(["007", "1", "-1", "1.10", "true", "2024-01-01", "1e3", "2024-01-01 00:00"]),
        min_size=1,
        max_size=6,
    )
)
def test_an_inferred_type_never_changes_a_value(
    environment: Environment, root: Path, cells: list[str]
) -> None:
    quoted = "\n".join('"' + cell.replace('"', '""') + '"' for cell in cells)
    (root / "c.csv").write_bytes(("v\n" + quoted + "\n").encode())

    async def read() -> list[tuple[object, ...]]:
        async with await Scratch.open(environment) as scratch:
            await move_out(SourceSpec(path="c.csv"), None, environment, scratch)
            return await scratch.fetch("SELECT v FROM back")

    back = [row[0] for row in asyncio.run(read())]
    assert len(back) == len(cells)
    for cell, value in zip(cells, back, strict=True):
        if isinstance(value, bool):
            assert cell.lower() == str(value).lower()
        elif isinstance(value, int):
            assert cell == str(value)
        elif isinstance(value, float | Decimal):
            assert Decimal(cell) == Decimal(str(value))
        elif isinstance(value, dt.datetime):
            assert dt.datetime.fromisoformat(cell).replace(tzinfo=None) == value.replace(tzinfo=None)
        else:
            assert cell == str(value)


async def test_csv_types_are_inferred_from_the_whole_file(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    lines = [f"{i},{i}.5,2024-01-01,0{i},{i},x" for i in range(20_000)] + ["oops,1e5,2024-01-02 10:00,7,,"]
    (root / "c.csv").write_text("a,b,c,d,e,f\n" + "\n".join(lines) + "\n")
    await move_out(SourceSpec(path="c.csv"), None, environment, scratch)
    kinds = {column.name: column.type for column in await scratch.columns("back")}
    assert kinds == {
        "a": "VARCHAR",
        "b": "DOUBLE",
        "c": "VARCHAR",
        "d": "VARCHAR",
        "e": "BIGINT",
        "f": "VARCHAR",
    }
    assert await scratch.fetch("SELECT e, f FROM back WHERE a = 'oops'") == [(None, None)]


async def test_the_types_of_many_columns_are_inferred_each_for_itself(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    values = {"BIGINT": "1", "DOUBLE": "1.5", "DATE": "2024-01-01", "VARCHAR": "x", "BOOLEAN": "true"}
    kinds = {f"c{number}": list(values)[number % 5] for number in range(80)}
    lines = [",".join(kinds), ",".join(values[kind] for kind in kinds.values())]
    (root / "wide.csv").write_text("\n".join(lines))
    await move_out(SourceSpec(path="wide.csv"), None, environment, scratch)
    assert {column.name: column.type for column in await scratch.columns("back")} == kinds


@pytest.mark.parametrize(
    ("late", "kinds"),
    [
        ("7,x", {"a": "BIGINT", "b": "VARCHAR"}),  # the guess holds; b has its first value here
        ("7,", {"a": "BIGINT", "b": "VARCHAR"}),
        ("7,5", {"a": "BIGINT", "b": "BIGINT"}),
        ("007,", {"a": "VARCHAR", "b": "VARCHAR"}),
        ("1.5,", {"a": "DOUBLE", "b": "VARCHAR"}),
        ("1234567890.1234567890123,", {"a": "DECIMAL(23,13)", "b": "VARCHAR"}),
    ],
)
async def test_a_late_value_overturns_the_guess_of_the_first_block(
    root: Path, environment: Environment, scratch: Scratch, late: str, kinds: dict[str, str]
) -> None:
    lines = [f"{number}," for number in range(250_000)]
    (root / "c.csv").write_text("a,b\n" + "\n".join(lines) + f"\n{late}\n")
    result = await move_out(SourceSpec(path="c.csv"), None, environment, scratch)
    assert result.rows == await scratch.count("back") == 250_001
    assert {column.name: column.type for column in await scratch.columns("back")} == kinds
    last = await scratch.fetch("SELECT a::VARCHAR FROM back OFFSET 250000")
    assert last == [(late.partition(",")[0],)]


async def test_rows_longer_than_a_block_are_read_or_refused(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    long = "x" * 3_000_000
    (root / "c.csv").write_text("a,b\n1,y\n2," + long + "\n3,z\n")
    await move_out(SourceSpec(path="c.csv"), None, environment, scratch)
    assert await scratch.fetch("SELECT a, length(b) FROM back ORDER BY a") == [(1, 1), (2, 3_000_000), (3, 1)]
    with pytest.raises(ConnectorError) as caught:
        await move_out(
            SourceSpec(path="c.csv", options={"max_row_bytes": 1_000_000}), None, environment, scratch
        )
    assert caught.value.code == "ROW_TOO_LONG"


async def test_a_scratch_is_locked_in_and_spills(environment: Environment, scratch: Scratch) -> None:
    for sql in (
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "LOAD sqlite",
        "SET memory_limit = '1TB'",
        "SET enable_external_access = true",
    ):
        with pytest.raises(ConnectorError) as caught:
            await scratch.execute(sql)
        assert caught.value.code == "SQL_NOT_ALLOWED"
    await scratch.execute(
        "CREATE TABLE big AS SELECT i, md5(i::VARCHAR) || md5((i + 1)::VARCHAR) AS t FROM range(4000000) x(i)"
    )
    assert any((scratch.folder / "spill").iterdir())  # 300 MB of text in 180 MB of memory
    assert await scratch.count("big") == 4_000_000


async def test_a_cancelled_query_stops(scratch: Scratch) -> None:
    endless = scratch.execute("SELECT count(*) FROM range(1000000000) a, range(1000000000) b")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(endless, 0.2)
    assert await scratch.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("content", "spec", "code", "place_named"),
    [
        (b"a,b\n1,2\n3\n", {}, "CSV_ROW_INVALID", "line 3"),
        (
            b'a,b\n1,"x\ny"\nz,2\n',
            {"schema": {"a": "INTEGER", "b": "VARCHAR"}},
            "VALUE_NOT_REPRESENTABLE",
            "line 4, column a",
        ),
        (
            b"a,b\n1,2\n1.5,2\n",
            {"schema": {"a": "INTEGER", "b": "VARCHAR"}},
            "VALUE_NOT_REPRESENTABLE",
            "line 3, column a",
        ),
        (b"a\n1.005\n", {"schema": {"a": "DECIMAL(5,2)"}}, "VALUE_NOT_REPRESENTABLE", "line 2, column a"),
        (b"a\n1e400\n", {"schema": {"a": "DOUBLE"}}, "VALUE_NOT_REPRESENTABLE", "line 2, column a"),
        (
            b"a\n2024-01-01 10:00:00\n",
            {"schema": {"a": "DATE"}},
            "VALUE_NOT_REPRESENTABLE",
            "line 2, column a",
        ),
        (b"a\nx\n\xff\n", {}, "ENCODING_INVALID", "line 3"),
        (b"a\n1\n", {"schema": {"gone": "INTEGER"}}, "COLUMN_NOT_FOUND", "gone"),
        (b"a\n1\n", {"columns": ("gone",)}, "COLUMN_NOT_FOUND", "gone"),
        (b"a,a\n1,2\n", {}, "DUPLICATE_COLUMN", "'a'"),
        (b"a,A\n1,2\n", {}, "DUPLICATE_COLUMN", "columns a and A"),
        (b'a,b\n1,"x"\n2,"y\n3,z\n', {}, "CSV_QUOTE_OPEN", "line 3"),
        (b'a,b\n1,"', {"schema": {"a": "INTEGER", "b": "VARCHAR"}}, "CSV_QUOTE_OPEN", "line 2"),
        (b"", {}, "FILE_EMPTY", "empty"),
        (b"a\n1\n", {"schema": {"a": "NONSENSE"}}, "TYPE_UNKNOWN", "NONSENSE"),
        (b"a\n1\n", {"options": {"delimiter": "||"}}, "OPTION_INVALID", "delimiter"),
    ],
)
async def test_csv_errors_name_the_place(
    root: Path,
    environment: Environment,
    scratch: Scratch,
    content: bytes,
    spec: dict[str, Any],
    code: str,
    place_named: str,
) -> None:
    (root / "c.csv").write_bytes(content)
    with pytest.raises(ConnectorError) as caught:
        await move_out(SourceSpec(path="c.csv", **spec), None, environment, scratch)
    assert caught.value.code == code
    assert place_named in caught.value.message


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (
            "SMALLINT",
            ("5", "+5", " 5 ", "007", "-0", "0x1F", "-0X1f", "1_0", "5.0", "1e2", "32768", "", "\u0665"),
        ),
        ("BIGINT", ("9223372036854775807", "9223372036854775808", "-9223372036854775808")),
        (
            "DOUBLE",
            ("1e308", "1e309", "inf", "-Infinity", "nan", "1.", ".5", "+1.5", "0x1p3", "1e-400", "-0.0"),
        ),
        ("FLOAT", ("16777217", "3.5e38", "1e-46", "0.1")),
        (
            "DATE",
            ("2024-02-29", "2023-02-29", "2024-1-1", "0001-01-01", "2024-01-01 00:00:00", " 2024-01-01"),
        ),
    ],
)
async def test_the_parser_gives_what_the_strict_conversion_gives(
    root: Path, environment: Environment, scratch: Scratch, kind: str, texts: Sequence[str]
) -> None:
    spec = SourceSpec(path="c.csv", schema={"a": kind, "b": "VARCHAR"})

    async def outcome(text: str, beside: str) -> object:
        (root / "c.csv").write_text(f'a,b\n"{text}",{beside}\n')
        try:
            await move_out(spec, None, environment, scratch)
        except ConnectorError as error:
            return error.code
        return (await scratch.fetch("SELECT CAST(a AS VARCHAR) FROM back"))[0]

    for text in texts:  # a number in hexadecimal anywhere has the file read strictly
        assert await outcome(text, "N840XL") == await outcome(text, "0x"), text


async def test_csv_dialects(root: Path, environment: Environment, scratch: Scratch) -> None:
    (root / "bom.csv").write_bytes(b'\xef\xbb\xbfa,b\r\n"x ""y""\r\nz",\r\n"",NA\r\n')
    options: dict[str, object] = {"null_values": ["", "NA"]}
    await move_out(SourceSpec(path="bom.csv", options=options), None, environment, scratch)
    assert await scratch.fetch("SELECT a, b FROM back") == [('x "y"\r\nz', None), ("", None)]
    (root / "latin.csv").write_bytes("nom;prix\nété;1,5\n".encode("latin-1"))
    options = {"delimiter": ";", "encoding": "latin-1"}
    await move_out(SourceSpec(path="latin.csv", options=options), None, environment, scratch)
    assert await scratch.fetch("SELECT nom, prix FROM back") == [("été", "1,5")]
    (root / "bare.csv").write_bytes(b"1|a\n2|b\n")
    options = {"delimiter": "|", "header": False}
    await move_out(SourceSpec(path="bare.csv", options=options), None, environment, scratch)
    assert await scratch.fetch("SELECT column1, column2 FROM back") == [(1, "a"), (2, "b")]
    (root / "inch.csv").write_bytes(
        b'size,b\n5" x 3,"say ""hi""\n"\n5",\n7","x"\n'
    )  # an odd number of quotes
    await move_out(SourceSpec(path="inch.csv"), None, environment, scratch)
    assert [row[0] for row in await scratch.fetch("SELECT size FROM back")] == ['5" x 3', '5"', '7"']
    (root / "head.csv").write_bytes(b"a,b\n")
    await move_out(SourceSpec(path="head.csv"), None, environment, scratch)
    assert await scratch.count("back") == 0


async def test_many_csv_files_must_agree(root: Path, environment: Environment, scratch: Scratch) -> None:
    (root / "p1.csv").write_text("a,b\n1,x\n")
    (root / "p2.csv").write_text("a,b\n2,y\n")
    assert (await move_out(SourceSpec(path="p*.csv"), None, environment, scratch)).rows == 2
    (root / "p3.csv").write_text("b,a\nz,3\n")
    with pytest.raises(ConnectorError, match=r"p3\.csv has columns b, a"):
        await move_out(SourceSpec(path="p*.csv"), None, environment, scratch)


async def test_json_numbers_keep_their_digits_or_are_refused(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    text = '[{"n": 12345678901234567890.123456789, "s": "x", "o": {"k": [1]}},\n {"n": null}]'
    (root / "j.json").write_text(text)
    schema = {"n": "DECIMAL(38,9)", "s": "VARCHAR", "o": "JSON"}
    await move_out(SourceSpec(path="j.json", schema=schema), None, environment, scratch)
    assert await scratch.fetch("SELECT n::VARCHAR, s, o::VARCHAR FROM back") == [
        ("12345678901234567890.123456789", "x", '{"k":[1]}'),
        (None, None, None),
    ]
    with pytest.raises(ConnectorError) as caught:
        await move_out(SourceSpec(path="j.json"), None, environment, scratch)
    assert caught.value.code == "NUMBER_TOO_LONG"


@pytest.mark.parametrize(
    ("name", "content", "code", "told"),
    [
        ("j.json", b'{"a": 1}\n{"A": 2}\n', "DUPLICATE_COLUMN", "columns A and a"),
        ("j.json", b"", "FILE_EMPTY", "no object"),
        ("j.json", b"[]", "FILE_EMPTY", "no object"),
        ("j.json", b'{"a":\n', "INPUT_INVALID", "j.json: Malformed JSON,"),
        ("p.parquet", b"PAR1" + bytes(100) + b"PAR1", "FILE_INVALID", "p.parquet: the file is damaged"),
    ],
)
async def test_what_is_no_table_is_refused_instead_of_guessed_at(
    root: Path, environment: Environment, scratch: Scratch, name: str, content: bytes, code: str, told: str
) -> None:
    (root / name).write_bytes(content)
    with pytest.raises(ConnectorError) as caught:
        await move_out(SourceSpec(path=name), None, environment, scratch)
    assert caught.value.code == code
    assert caught.value.error_class in (ErrorClass.DATA, ErrorClass.CONFIGURATION)  # no try more helps
    assert told in caught.value.message
    assert str(root) not in caught.value.message


async def test_fields_may_look_like_names_that_were_made_up(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    (root / "j.json").write_text('{"a": 1, "a_1": 2}\n{"json": 3}\n')
    await move_out(SourceSpec(path="j.json"), None, environment, scratch)
    assert await scratch.fetch("SELECT a, a_1, json FROM back") == [(1, 2, None), (None, None, 3)]


async def test_json_misfits_name_object_and_field(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    lines = [json.dumps({"a": i, "b": "x"}) for i in range(50)]
    lines[37] = '{"a": "text", "b": "x"}'
    (root / "j.ndjson").write_text("\n".join(lines))
    with pytest.raises(ConnectorError) as caught:
        await move_out(
            SourceSpec(path="j.ndjson", schema={"a": "BIGINT", "b": "VARCHAR"}), None, environment, scratch
        )
    assert caught.value.details["row"] == "object 38"
    assert caught.value.details["column"] == "a"


async def test_json_is_inferred_whole_and_texts_stay_texts(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    lines = ['{"a": 1, "d": "2024-01-01", "s": {"x": 1}}'] * 30_000 + ['{"a": 1.5, "z": true}']
    (root / "j.ndjson").write_text("\n".join(lines))
    await move_out(SourceSpec(path="j.ndjson"), None, environment, scratch)
    kinds = {column.name: column.type for column in await scratch.columns("back")}
    assert kinds == {"a": "DOUBLE", "d": "VARCHAR", "s": "STRUCT(x BIGINT)", "z": "BOOLEAN"}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/etc/passwd", "PATH_NOT_ALLOWED"),
        ("../outside.csv", "PATH_NOT_ALLOWED"),
        ("link.csv", "PATH_NOT_ALLOWED"),
        ("gone.csv", "FILE_NOT_FOUND"),
        ("plain.csv/x.csv", "PATH_INVALID"),
        (f"{'ł' * 120}.csv", "PATH_INVALID"),
        ("none*.csv", "FILE_NOT_FOUND"),
        ("fifo.csv", "NOT_A_FILE"),
        ("what.xyz", "FORMAT_UNKNOWN"),
    ],
)
async def test_files_stay_under_the_roots(
    root: Path, environment: Environment, scratch: Scratch, path: str, code: str
) -> None:
    import os

    (root.parent / "outside.csv").write_text("a\n1\n")
    (root / "link.csv").symlink_to(root.parent / "outside.csv")
    os.mkfifo(root / "fifo.csv")
    (root / "plain.csv").write_text("a\n1\n")
    with pytest.raises(ConnectorError) as caught:
        await move_out(
            SourceSpec(path=path, format=None if path.endswith("xyz") else "csv"), None, environment, scratch
        )
    assert caught.value.code == code


async def test_no_roots_mean_no_files(environment: Environment, scratch: Scratch) -> None:
    from dataclasses import replace

    with pytest.raises(ConnectorError) as caught:
        await move_out(SourceSpec(path="/tmp/x.csv"), None, replace(environment, file_roots=()), scratch)
    assert caught.value.code == "PATH_NOT_ALLOWED"


async def test_sqlite_holds_values_to_the_declared_type(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    with sqlite3.connect(root / "base.sqlite") as base:
        base.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, d DATE, x)")
        base.execute("INSERT INTO t VALUES (1, 5, '2024-01-01', 'a'), (7, 'text', '2024-01-01', 'b')")
    with pytest.raises(ConnectorError, match="column n, rowid 7: text in a column declared INTEGER"):
        await move_out(SourceSpec(table="t"), place("sqlite", root), environment, scratch)
    with sqlite3.connect(root / "base.sqlite") as base:
        base.execute("UPDATE t SET n = 6, d = 'someday' WHERE id = 7")
    with pytest.raises(ConnectorError, match="column d, rowid 7: text is not a DATE"):
        await move_out(SourceSpec(table="t"), place("sqlite", root), environment, scratch)
    with sqlite3.connect(root / "base.sqlite") as base:
        base.execute("UPDATE t SET d = '2024-01-02', x = 5 WHERE id = 7")
    with pytest.raises(ConnectorError) as caught:
        await move_out(SourceSpec(table="t"), place("sqlite", root), environment, scratch)
    assert caught.value.code == "TYPES_MIXED"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_user_queries_reach_nothing_but_the_file(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    connect: Any = sqlite3.connect if kind == "sqlite" else duckdb.connect
    with connect(root / f"base.{kind}") as base:
        base.execute("CREATE TABLE t AS SELECT 1 AS a")
    for query in (
        "SELECT * FROM read_csv('/etc/passwd')",
        "ATTACH '/tmp/x.db' AS x",
        "DELETE FROM t",
        "SELECT 1; DELETE FROM t",
    ):
        with pytest.raises(ConnectorError):
            await move_out(SourceSpec(query=query), place(kind, root), environment, scratch)
    await move_out(SourceSpec(query="SELECT a + 1 AS b FROM t;"), place(kind, root), environment, scratch)
    assert await scratch.fetch("SELECT b FROM back") == [(2,)]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_database_file_modes(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    base = place(kind, root)

    async def put(number: int, **spec: Any) -> list[tuple[object, ...]]:
        await move_in(SinkSpec(table="t", **spec), base, environment, scratch, LoadKey("r", str(number)))
        await move_out(SourceSpec(table="t"), base, environment, scratch)
        return await scratch.fetch("SELECT id, v FROM back ORDER BY ALL")

    await scratch.execute("CREATE TABLE rows AS SELECT * FROM (VALUES (1, 'a'), (2, 'a')) x(id, v)")
    assert await put(1, mode="merge", keys=("id",)) == [(1, "a"), (2, "a")]
    await scratch.execute(
        "CREATE OR REPLACE TABLE rows AS SELECT * FROM (VALUES (2, 'b'), (3, 'b')) x(id, v)"
    )
    assert await put(2, mode="merge", keys=("id",)) == [(1, "a"), (2, "b"), (3, "b")]
    assert await put(3, mode="merge", keys=("v", "id")) == [(1, "a"), (2, "b"), (3, "b")]
    part = PartitionRange("id", 2, 4)
    await scratch.execute("CREATE OR REPLACE TABLE rows AS SELECT 3 AS id, 'c' AS v")
    assert await put(4, mode="replace_partition", partition=part) == [(1, "a"), (3, "c")]
    assert await put(5, mode="replace") == [(3, "c")]
    await scratch.execute("CREATE OR REPLACE TABLE rows AS SELECT 4 AS id, 'd' AS v")
    assert await put(6) == [(3, "c"), (4, "d")]
    assert await put(6) == [(3, "c"), (4, "d")]  # the same load again: its receipt stands
    assert [table.name for table in (await list_tables(base, environment)).tables] == ["t"]
    assert (await probe_connection(base, environment)).ok


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_one_file_can_be_source_and_target_at_once(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    base = place(kind, root)
    await scratch.execute("CREATE TABLE rows AS SELECT 1 AS a")
    await move_in(SinkSpec(table="t"), base, environment, scratch)
    source = await open_source(SourceSpec(table="t"), base, environment)
    await source.load(scratch, "back")
    receipt = await move_in(
        SinkSpec(table="u"), base, environment, scratch, LoadKey("r", "2"), relation="back"
    )
    await source.close()
    assert receipt.rows == 1
    assert (await move_out(SourceSpec(table="u"), base, environment, scratch)).rows == 1


def test_the_package_imports_no_driver() -> None:
    drivers = "('duckdb', 'pyarrow', 'asyncpg')"
    program = f"import sys, headrace_connectors.api; print([m for m in {drivers} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_database_file_partitions_by_time(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    base = place(kind, root)
    await scratch.execute(
        "CREATE TABLE rows AS SELECT TIMESTAMP '2024-01-01' + to_hours(i) AS at, 1 AS v FROM range(48) x(i)"
    )
    await move_in(SinkSpec(table="t"), base, environment, scratch)
    await scratch.execute(
        "CREATE OR REPLACE TABLE rows AS SELECT TIMESTAMP '2024-01-02 05:00:00' AS at, 2 AS v"
    )
    part = PartitionRange("at", dt.date(2024, 1, 2), dt.date(2024, 1, 3))
    spec = SinkSpec(table="t", mode="replace_partition", partition=part)
    await move_in(spec, base, environment, scratch, LoadKey("r", "p"))
    await move_out(SourceSpec(table="t"), base, environment, scratch)
    assert await scratch.fetch("SELECT v, count(*) FROM back GROUP BY v ORDER BY v") == [(1, 24), (2, 1)]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_database_file_incremental(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    base = place(kind, root)
    await scratch.execute("CREATE TABLE rows AS SELECT i AS id FROM range(5) x(i)")
    await move_in(SinkSpec(table="t"), base, environment, scratch)
    first = await move_out(SourceSpec(table="t", incremental=Incremental("id")), base, environment, scratch)
    await scratch.execute("CREATE OR REPLACE TABLE rows AS SELECT i AS id FROM range(5, 8) x(i)")
    await move_in(SinkSpec(table="t"), base, environment, scratch, LoadKey("r", "2"))
    spec = SourceSpec(table="t", incremental=Incremental("id", first.cursor))
    assert (await move_out(spec, base, environment, scratch)).rows == 3
    spec = SourceSpec(table="t", incremental=Incremental("id", first.cursor, lag=1))
    assert (await move_out(spec, base, environment, scratch)).rows == 5


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_numbers_that_a_query_computes_are_gone_on_from(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    base = place(kind, root)
    await scratch.execute("CREATE TABLE rows AS SELECT i AS id FROM range(5) x(i)")
    await move_in(SinkSpec(table="t"), base, environment, scratch)
    spec = SourceSpec(query="SELECT id / 2.0 AS half FROM t", incremental=Incremental("half"))
    first = await move_out(spec, base, environment, scratch)
    await scratch.execute("CREATE OR REPLACE TABLE rows AS SELECT i AS id FROM range(5, 8) x(i)")
    await move_in(SinkSpec(table="t"), base, environment, scratch, LoadKey("r", "2"))
    spec = replace(spec, incremental=Incremental("half", first.cursor))
    assert (await move_out(spec, base, environment, scratch)).rows == 3


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_an_initial_value_above_all_is_where_the_next_run_begins_too(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch
) -> None:
    base = place(kind, root)
    await scratch.execute("CREATE TABLE rows AS SELECT i AS id FROM range(5) x(i)")
    await move_in(SinkSpec(table="t"), base, environment, scratch)
    spec = SourceSpec(table="t", incremental=Incremental("id", initial="9"))
    result = await move_out(spec, base, environment, scratch)
    assert (result.rows, result.cursor) == (0, None)
    wrong = replace(spec, incremental=Incremental("id", initial="abc"))
    with pytest.raises(ConnectorError, match="initial is no BIGINT"):
        await move_out(wrong, base, environment, scratch)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
@pytest.mark.parametrize(
    ("create", "select", "code"),
    [
        ("v SMALLINT NOT NULL", "NULL::INTEGER AS v", "VALUE_DOES_NOT_FIT"),
        ("v DATE", "'no date' AS v", "VALUE_DOES_NOT_FIT"),
        ("v BIGINT", "1.5 AS v", "VALUE_DOES_NOT_FIT"),
        ("v BIGINT", "1 AS v, 2 AS w", "COLUMN_NOT_IN_TARGET"),
        ("v BIGINT, w BIGINT NOT NULL", "1 AS v", "REQUIRED_COLUMN_MISSING"),
        ("v DATE", "1 AS v", "TYPE_MISMATCH"),
    ],
)
async def test_database_files_refuse_what_does_not_fit(
    kind: Kind, root: Path, environment: Environment, scratch: Scratch, create: str, select: str, code: str
) -> None:
    connect: Any = sqlite3.connect if kind == "sqlite" else duckdb.connect
    with connect(root / f"base.{kind}") as base:
        base.execute(f"CREATE TABLE t ({create})")
    await scratch.execute(f"CREATE TABLE rows AS SELECT {select}")
    with pytest.raises(ConnectorError) as caught:
        await move_in(SinkSpec(table="t"), place(kind, root), environment, scratch)
    assert caught.value.code == code
    with connect(root / f"base.{kind}") as base:
        assert base.execute("SELECT count(*) FROM t").fetchone() == (0,)


async def test_nan_has_no_place_in_sqlite_or_json(
    root: Path, environment: Environment, scratch: Scratch
) -> None:
    await scratch.execute("CREATE TABLE rows AS SELECT 'NaN'::DOUBLE AS v")
    for spec, connection in (
        (SinkSpec(table="t"), place("sqlite", root)),
        (SinkSpec(path="x.json", mode="replace"), None),
    ):
        with pytest.raises(ConnectorError) as caught:
            await move_in(spec, connection, environment, scratch)
        assert caught.value.code == "VALUE_DOES_NOT_FIT"
    assert not (root / "x.json").exists()


async def test_file_modes(root: Path, environment: Environment, scratch: Scratch) -> None:
    await scratch.execute("CREATE TABLE rows AS SELECT 1 AS a")

    async def put(number: int, path: str, **spec: Any) -> int:
        await move_in(
            SinkSpec(path=path, format="csv", **spec), None, environment, scratch, LoadKey("r", str(number))
        )
        return int((await move_out(SourceSpec(path=path, format="csv"), None, environment, scratch)).rows)

    assert await put(1, "one.csv", mode="replace") == 1
    assert await put(2, "one.csv", mode="replace") == 1
    assert await put(3, "parts") == 1
    assert await put(3, "parts") == 1  # the same load lands once
    assert await put(4, "parts") == 2
    part = PartitionRange("a", 0, 5)
    assert await put(5, "ranges", mode="replace_partition", partition=part) == 1
    assert await put(6, "ranges", mode="replace_partition", partition=part) == 1
    for path, mode, code in (
        ("parts", "replace", "TARGET_IS_A_FOLDER"),
        ("one.csv", "append", "TARGET_IS_A_FILE"),
        ("one.csv/two.csv", "replace", "PATH_INVALID"),
        ("one.csv", "merge", "MODE_NOT_SUPPORTED"),
    ):
        with pytest.raises(ConnectorError) as caught:
            await put(7, path, mode=mode, keys=("a",))
        assert caught.value.code == code


TARGETS = ["sqlite", "duckdb", "file"]


def target_of(kind: str, root: Path) -> tuple[SinkSpec, Connection | None, SourceSpec]:
    if kind == "file":
        return SinkSpec(path="out.csv", mode="replace"), None, SourceSpec(path="out.csv")
    return (
        SinkSpec(table="t", mode="append"),
        place("sqlite" if kind == "sqlite" else "duckdb", root),
        SourceSpec(table="t"),
    )


@pytest.mark.parametrize("kind", TARGETS)
async def test_an_old_fence_is_refused(
    kind: str, root: Path, environment: Environment, scratch: Scratch
) -> None:
    spec, connection, reading = target_of(kind, root)
    await scratch.execute("CREATE TABLE rows AS SELECT 1 AS a")
    old = await open_sink(spec, connection, environment)
    assert await old.claim(KEY, 1) is None
    await old.stage(scratch, "rows")
    await old.close()  # a paused attempt whose file handles are gone would hold nothing either
    receipt = await move_in(spec, connection, environment, scratch, fence=2)
    assert receipt.cursor == b"cursor"
    assert await old.commit(KEY, 1) == receipt  # landed by the other: its receipt, not a second load
    late = await open_sink(spec, connection, environment)
    await late.tombstone(LoadKey("run-1", "other"), 5)
    with pytest.raises(FencedOut):
        await late.claim(LoadKey("run-1", "other"), 5)
    assert (await move_out(reading, connection, environment, scratch)).rows == 1


@pytest.mark.parametrize("kind", TARGETS)
async def test_a_tombstone_keeps_out_what_was_staged(
    kind: str, root: Path, environment: Environment, scratch: Scratch
) -> None:
    spec, connection, reading = target_of(kind, root)
    await scratch.execute("CREATE TABLE rows AS SELECT 1 AS a")
    sink = await open_sink(spec, connection, environment)
    await sink.claim(KEY, 1)
    await sink.stage(scratch, "rows")
    assert await sink.tombstone(KEY, 1) is None
    with pytest.raises(FencedOut):
        await sink.commit(KEY, 1)
    await sink.abandon()
    await sink.close()
    assert (await move_in(spec, connection, environment, scratch, fence=2)).fence == 2  # a retry of the run
    again = await open_sink(spec, connection, environment)
    landed = await again.tombstone(KEY)
    assert landed is not None
    assert landed.fence == 2
    await again.close()
    assert (await move_out(reading, connection, environment, scratch)).rows == 1


@pytest.mark.parametrize("kind", TARGETS)
async def test_a_tombstone_clears_away_what_a_dead_attempt_has_staged(
    kind: str, root: Path, environment: Environment, scratch: Scratch
) -> None:
    spec, connection, _ = target_of(kind, root)
    await scratch.execute("CREATE TABLE rows AS SELECT 1 AS a")
    dead = await open_sink(spec, connection, environment)
    await dead.claim(KEY, 1)
    await dead.stage(scratch, "rows")
    await dead.close()
    assert staged_in(kind, root, environment) == 1

    settling = await open_sink(spec, connection, environment)
    await settling.tombstone(KEY, 1)
    await settling.close()

    assert staged_in(kind, root, environment) == 0


def staged_in(kind: str, root: Path, environment: Environment) -> int:
    """How much is staged, by whomever."""
    if kind == "duckdb":
        with duckdb.connect(str(root / "base.duckdb")) as database:
            rows = database.execute(
                "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '\\_stg%' ESCAPE '\\'"
            )
            return int(str(rows.fetchall()[0][0]))
    return len([*root.rglob("_stg_*"), *environment.temp_dir.rglob("_stg_*")])


async def test_a_file_load_cut_at_the_rename_is_settled_either_way(
    root: Path, environment: Environment, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scratch.execute("CREATE TABLE rows AS SELECT 1 AS a")
    spec = SinkSpec(path="out.csv", mode="replace")
    for number, after_rename in enumerate((False, True)):
        key = LoadKey("r", str(number))
        sink = await open_sink(spec, None, environment)
        await sink.claim(key, 1)
        await sink.stage(scratch, "rows")
        real = Path.replace

        def dying(self: Path, target: Path, after: bool = after_rename, real: Any = real) -> Path:
            if self.name.startswith("_stg_"):
                if after:
                    real(self, target)
                raise OSError(5, "the process dies here")
            return Path(real(self, target))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            with pytest.raises(ConnectorError):
                await sink.commit(key, 1)
        found = await sink.receipt(key)
        assert (found is not None) is after_rename
        if found is None:
            assert (await move_in(spec, None, environment, scratch, key, fence=2)).rows == 1


async def test_inline_values(environment: Environment, scratch: Scratch) -> None:
    values = [{"id": 1, "n": 1.5, "s": "x", "b": True, "o": {"k": [1]}}, {"id": 2**64, "s": "a'b\0"}]
    await move_out(SourceSpec(values=values), None, environment, scratch)
    kinds = [column.type for column in await scratch.columns("back")]
    assert kinds == ["HUGEINT", "DOUBLE", "VARCHAR", "BOOLEAN", "JSON"]
    assert await scratch.fetch("SELECT id, s FROM back ORDER BY id") == [(1, "x"), (2**64, "a'b\0")]
    await move_out(
        SourceSpec(values=[{"d": "1.50"}], schema={"d": "DECIMAL(5,2)"}), None, environment, scratch
    )
    assert await scratch.fetch("SELECT d::VARCHAR FROM back") == [("1.50",)]
    for spec, code in (
        (SourceSpec(values=[{"a": 1}, {"a": "x"}]), "TYPES_MIXED"),
        (SourceSpec(values=[{"a": 2**53 + 1}, {"a": 0.5}]), "TYPES_MIXED"),  # a DOUBLE would round the one
        (SourceSpec(values=[{"a": "x"}], schema={"a": "INTEGER"}), "VALUE_NOT_REPRESENTABLE"),
        (SourceSpec(values=[]), "NO_COLUMNS"),
    ):
        with pytest.raises(ConnectorError) as caught:
            await move_out(spec, None, environment, scratch)
        assert caught.value.code == code


async def test_discard_counts(environment: Environment, scratch: Scratch) -> None:
    await scratch.execute("CREATE VIEW rows AS SELECT i FROM range(10) x(i)")
    receipt = await move_in(SinkSpec(discard=True), None, environment, scratch)
    assert (receipt.rows, receipt.cursor) == (10, b"cursor")
    again = await move_in(SinkSpec(discard=True), None, environment, scratch)
    assert again.checksum == receipt.checksum


async def test_listing_a_folder(root: Path, environment: Environment) -> None:
    folder = Connection("f", "folder", "file", path=str(root))
    for name in ("b.csv", "a.parquet", "notes.txt"):
        (root / name).write_text("")
    page = await list_tables(folder, environment, limit=1)
    assert [table.name for table in page.tables] == ["a.parquet"]
    assert [
        table.name for table in (await list_tables(folder, environment, after=page.next_after)).tables
    ] == ["b.csv"]
    assert (await probe_connection(folder, environment)).ok
    outside = Connection("f", "folder", "file", path="/etc")
    assert (await probe_connection(outside, environment)).code == "PATH_NOT_ALLOWED"
