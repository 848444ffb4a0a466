"""Rows as bytes: what a query gives, written as JSON, NDJSON, CSV, Parquet or an Arrow stream.

Rows are written as they come, so memory holds a batch of them and not the whole. DuckDB says how a
value is written as text; Python looks at no single value.

CSV is for spreadsheets, and theirs is the risk: text that one would run as a formula has a quote
before it. The other forms have each value as it is.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mallard.query.sql import Sql, name

BATCH_ROWS = 8_192
PARQUET_ROW_GROUP_ROWS = 65_536
# What a cell begins with that a spreadsheet runs: OWASP, "CSV Injection".
FORMULA_STARTS = "=+-@\t\r"
# What Arrow writes to CSV as DuckDB would; all else becomes text first.
_PLAIN = re.compile(r"U?(TINY|SMALL|BIG)INT|U?INTEGER|DOUBLE|FLOAT|BOOLEAN|DATE|DECIMAL\(.*\)")
_NUMBER = re.compile(r"U?HUGEINT|BIGNUM")  # a minus before it makes no formula


class Form(StrEnum):
    """How rows are written."""

    JSON = "json"  # an array of objects
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"  # an IPC stream

    @property
    def media_type(self) -> str:
        """What HTTP calls it."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    Form.JSON: "application/json",
    Form.NDJSON: "application/x-ndjson",
    Form.CSV: "text/csv; charset=utf-8",
    Form.PARQUET: "application/vnd.apache.parquet",
    Form.ARROW: "application/vnd.apache.arrow.stream",
}


class Sink(Protocol):
    """Takes bytes, one after the other."""

    def write(self, content: bytes, /) -> Any:
        """Take bytes; may wait until there is room for them."""


class _Batches(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> object: ...

    def close(self) -> object: ...


def write(
    connection: duckdb.DuckDBPyConnection, queries: Iterable[Sql], form: Form, sink: Sink
) -> int:
    """Write the rows of queries, one after the other, and return how many they were.

    queries: at least one; all have the same columns. Raises what DuckDB and Arrow raise.
    """
    if form in {Form.JSON, Form.NDJSON}:
        return _write_json(connection, queries, form, sink)
    return _write_batches(connection, queries, form, sink)


def _write_batches(
    connection: duckdb.DuckDBPyConnection, queries: Iterable[Sql], form: Form, sink: Sink
) -> int:
    rows = 0
    writer: _Batches | None = None
    held: list[pa.RecordBatch] = []
    stream = _File(sink)
    for query in queries:
        reader = connection.sql(_as_csv(connection, query) if form is Form.CSV else query)
        batches = reader.to_arrow_reader(BATCH_ROWS)
        writer = writer or _writer(form, batches.schema, stream)
        for batch in batches:
            rows += batch.num_rows
            held.append(batch)
            # A batch becomes a row group of Parquet.
            if form is not Form.PARQUET or sum(map(len, held)) >= PARQUET_ROW_GROUP_ROWS:
                _flush(writer, held)
    assert writer is not None, "a query at least"
    _flush(writer, held)
    writer.close()
    return rows


def _flush(writer: _Batches, held: list[pa.RecordBatch]) -> None:
    for batch in pa.Table.from_batches(held).combine_chunks().to_batches() if held else ():
        writer.write_batch(batch)
    held.clear()


def _writer(form: Form, schema: pa.Schema, stream: Any) -> _Batches:
    writer: _Batches
    if form is Form.CSV:
        writer = pa_csv.CSVWriter(stream, schema)
    elif form is Form.PARQUET:
        writer = pq.ParquetWriter(stream, schema, compression="zstd")
    else:
        writer = pa.ipc.new_stream(stream, schema)
    return writer


def _as_csv(connection: duckdb.DuckDBPyConnection, query: Sql) -> Sql:
    # As a query within a query, so that its columns have names that differ.
    found = connection.sql(f"SELECT * FROM (\n{query}\n)")
    columns = (
        f"{_cell(name(column), str(kind))} AS {name(column)}"
        for column, kind in zip(found.columns, found.types, strict=True)
    )
    return Sql(f"SELECT {', '.join(columns)} FROM (\n{query}\n)")


def _cell(column: Sql, kind: str) -> Sql:
    if _PLAIN.fullmatch(kind):
        return column
    text = Sql(f"{column}::VARCHAR")
    if _NUMBER.fullmatch(kind):
        return text
    starts = ", ".join(f"chr({ord(each)})" for each in FORMULA_STARTS)
    return Sql(f"CASE WHEN left({text}, 1) IN ({starts}) THEN '''' || {text} ELSE {text} END")


def _write_json(
    connection: duckdb.DuckDBPyConnection, queries: Iterable[Sql], form: Form, sink: Sink
) -> int:
    between, rows = (b"\n", 0) if form is Form.NDJSON else (b",\n", 0)
    if form is Form.JSON:
        sink.write(b"[")
    for lines in itertools.chain.from_iterable(_lines(connection, query) for query in queries):
        if form is Form.JSON and rows:
            sink.write(between)
        sink.write(_joined(lines, between))
        if form is Form.NDJSON:
            sink.write(between)
        rows += len(lines)
    if form is Form.JSON:
        sink.write(b"]")
    return rows


def _lines(connection: duckdb.DuckDBPyConnection, query: Sql) -> Iterator[pa.Array]:
    """Yield the rows of a query as JSON objects, some at a time."""
    objects = f"SELECT to_json(struct_pack(*COLUMNS(*)))::VARCHAR AS row FROM (\n{query}\n)"
    for batch in connection.sql(objects).to_arrow_reader(BATCH_ROWS):
        if batch.num_rows:
            yield batch.column(0)


def _joined(lines: pa.Array, between: bytes) -> bytes:
    """Return texts as one. A number that JSON does not know, such as NaN, becomes null."""
    ends = pa.array([0, len(lines)], pa.int32())
    whole = pa.ListArray.from_arrays(ends, lines.cast(pa.binary()))
    text: bytes = pc.binary_join(whole, between)[0].as_py()
    if b"NaN" not in text and b"Infinity" not in text:
        return text
    return between.join(map(_valid, lines.to_pylist()))


def _valid(line: str) -> bytes:
    value = json.loads(line, parse_constant=lambda _: None)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def as_file(sink: Sink) -> Any:
    """Return what Arrow writes to as to a file."""
    return _File(sink)


class _File:
    """What Arrow writes to: a sink that it may close, which leaves the sink as it was."""

    closed = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, content: Any) -> int:
        self._sink.write(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Do nothing: the sink says itself when its bytes go."""

    def close(self) -> None:
        self.closed = True
