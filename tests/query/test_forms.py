from __future__ import annotations

import csv
import io
import json
import weakref
from collections.abc import Iterator
from typing import Any, cast

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mallard.query.forms import BATCH_ROWS, PARQUET_ROW_GROUP_ROWS, Form, write
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


class Watched:
    """A connection that knows the most batches of its results that were ever there at once."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._given: list[weakref.ref[pa.RecordBatch]] = []
        self.batches = 0
        self.most = 0

    def sql(self, query: str) -> Watched:
        self._relation: Any = self._connection.sql(query)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._relation, name)

    def to_arrow_reader(self, rows: int) -> Watched:
        self._relation = self._relation.to_arrow_reader(rows)
        return self

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._relation:
            self.batches += 1
            self._given = [each for each in self._given if each() is not None]
            self._given.append(weakref.ref(batch))
            self.most = max(self.most, len(self._given))
            yield batch


@pytest.mark.parametrize("form", Form)
def test_memory_holds_a_few_batches_of_rows_however_many_there_are(form: Form) -> None:
    with duckdb.connect() as connection:
        watched = Watched(connection)
        queries = [
            Sql(f"SELECT range, 'text ' || range AS text FROM range({n})") for n in (1, 200_000)
        ]
        rows = write(cast(Any, watched), queries, form, io.BytesIO())
    assert rows == 200_001
    assert watched.batches > 20
    # A row group of Parquet is written at once; of all else there is one, and the next.
    allowed = PARQUET_ROW_GROUP_ROWS // BATCH_ROWS + 1 if form is Form.PARQUET else 2
    assert watched.most <= allowed
