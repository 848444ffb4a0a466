"""A whole report as bytes, a page after the other, so that memory holds a page of it."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import duckdb
import orjson
import pyarrow.parquet as pq

from mallard.query.answers import Answers
from mallard.query.engine import Session, settle
from mallard.query.forms import Form, Sink, as_file
from mallard.query.named.asking import Asked, Asking, Page
from mallard.query.named.columns import Column, Row, cells, flat, schema, table
from mallard.query.named.parameters import check_names
from mallard.query.named.registry import exported
from mallard.query.sandboxed import Limits
from mallard.query.still import Paging, Still

# In a file's name, or in a header; a dimension of properties may hold any character.
_UNFIT = re.compile("[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Whole:
    """All rows of a report. what: its name in exports; asking: the site and the parameters."""

    what: str
    asking: Asking

    @property
    def file_stem(self) -> str:
        """What a file of it may be called, in characters that any system takes."""
        return _UNFIT.sub("_", f"{self.asking.site.site_id}_{self.what}")

    def asked(self) -> Asked:
        """Return what can be answered; raises InvalidInput."""
        report, argument, more = exported(self.what)
        check_names(self.asking.given, report.whole)
        return report.read(
            replace(self.asking, argument=argument, given={**more, **self.asking.given})
        )


@dataclass(frozen=True, slots=True)
class WholeTask:
    """The work of a process: see `query/sandboxed.py`."""

    whole: Whole
    still: Still
    form: Form
    limits: Limits
    is_foreign: bool = False

    def answer(self, connection: duckdb.DuckDBPyConnection, output: BinaryIO) -> dict[str, Any]:
        """Write the report and return how many rows it has."""
        memory_bytes = self.limits.memory_bytes
        rows = write_whole(connection, self.whole, self.still, self.form, output, memory_bytes)
        output.flush()
        return {"rows": rows}


def write_whole(
    connection: duckdb.DuckDBPyConnection,
    whole: Whole,
    still: Still,
    form: Form,
    sink: Sink,
    memory_bytes: int,
) -> int:
    """Write a report, and return how many rows it has; raises what its answers raise.

    memory_bytes: what the database may take.
    """
    settle(connection, memory_bytes)
    asked = whole.asked()
    with closing(Paging(connection.cursor())) as session:
        pages = pages_of(session, still.answers(), asked)
        return write_rows(pages, asked.columns, whole.asking.context.zone, form, sink)


def pages_of(session: Session, answers: Answers, asked: Asked) -> Iterator[list[Row]]:
    """Yield all rows of a report, some at a time; each time the next are looked for."""
    for part in asked.parts() if asked.parts else (asked,):
        if not part.pages:
            yield part.answer(session, answers, part.page).rows
            continue
        for offset in itertools.count(0, part.pages):
            found = part.answer(session, answers, Page(part.pages, offset))
            yield found.rows
            if found.count < part.pages:
                break


def write_rows(
    pages: Iterable[list[Row]], columns: Sequence[Column], zone: ZoneInfo, form: Form, sink: Sink
) -> int:
    """Write rows as they come, and return how many they are. form: one of FORMS.

    Nothing is written before there is a page, so that what is wrong with the first is told alone.
    """
    return _WRITERS[form](pages, columns, zone, sink)


def _write_csv(
    pages: Iterable[list[Row]], columns: Sequence[Column], zone: ZoneInfo, sink: Sink
) -> int:
    count = 0
    for number, rows in enumerate(pages):
        sink.write(csv_text(rows, columns, head=number == 0).encode())
        count += len(rows)
    return count


def csv_text(rows: Iterable[Row], columns: Sequence[Column], *, head: bool = True) -> str:
    """Return rows as CSV (RFC 4180), with the names of the columns before them."""
    text = io.StringIO()
    writer = csv.writer(text)
    if head:
        writer.writerow(column.name for column in columns)
    writer.writerows(cells(row, columns) for row in rows)
    return text.getvalue()


def _write_ndjson(
    pages: Iterable[list[Row]], columns: Sequence[Column], zone: ZoneInfo, sink: Sink
) -> int:
    count = 0
    for rows in pages:
        lines = (orjson.dumps(flat(row, columns), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        sink.write(b"".join(lines))
        count += len(rows)
    return count


def _write_parquet(
    pages: Iterable[list[Row]], columns: Sequence[Column], zone: ZoneInfo, sink: Sink
) -> int:
    count = 0
    writer: pq.ParquetWriter | None = None
    for rows in pages:
        if writer is None:
            writer = pq.ParquetWriter(as_file(sink), schema(columns, zone), compression="zstd")
        if rows:
            writer.write_table(table(rows, columns, zone))
        count += len(rows)
    assert writer is not None, "a page at least"
    writer.close()
    return count


_WRITERS: Mapping[Form, Callable[[Iterable[list[Row]], Sequence[Column], ZoneInfo, Sink], int]] = {
    Form.CSV: _write_csv,
    Form.NDJSON: _write_ndjson,
    Form.PARQUET: _write_parquet,
}
FORMS = tuple(_WRITERS)
