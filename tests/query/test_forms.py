from __future__ import annotations

import csv
import io
import json

import duckdb
import pyarrow.parquet as pq

from mallard.query.forms import Form, write
from mallard.query.sql import Sql

TEXTS = ["=1+1", "+1", "-1", "@a", "\ta", "\ra", "a=1", "", "'=1", None]
NUMBERS = ["-1.5::DOUBLE", "-2::BIGINT", "-3::HUGEINT", "-4.25::DECIMAL(12,2)"]


def written(form: Form) -> bytes:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (n INT, text VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(TEXTS)))
        numbers = ", ".join(f"{each} AS number_{n}" for n, each in enumerate(NUMBERS))
        sink = io.BytesIO()
        write(connection, [Sql(f"SELECT text, {numbers} FROM t ORDER BY n")], form, sink)
        return sink.getvalue()


def test_in_csv_no_text_is_a_formula_and_numbers_stay_numbers() -> None:
    rows = list(csv.reader(io.StringIO(written(Form.CSV).decode(), newline="")))[1:]
    quoted = ["'=1+1", "'+1", "'-1", "'@a", "'\ta", "'\ra", "a=1", "", "'=1", ""]
    assert [row[0] for row in rows] == quoted
    assert rows[0][1:] == ["-1.5", "-2", "-3", "-4.25"]


def test_other_forms_have_each_text_as_it_is() -> None:
    assert [row["text"] for row in json.loads(written(Form.JSON))] == TEXTS
    lines = written(Form.NDJSON).splitlines()
    assert [json.loads(line)["text"] for line in lines] == TEXTS
    assert pq.read_table(io.BytesIO(written(Form.PARQUET)))["text"].to_pylist() == TEXTS
