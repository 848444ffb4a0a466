"""Writes the events of a UTC date to parts, and the visits of its sites, from queries over them.

Rows stream from DuckDB to the files: what a date holds does not bound the memory it takes. When
something here raises, nothing is left of what it wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.events import annotated_rows_of
from mallard.query.sessions import SESSION_SCHEMA, annotated, visits
from mallard.query.sql import Sql
from mallard.store.encoding import LEVEL_1_ORDER
from mallard.store.part import Derived, Part
from mallard.store.snapshot import day_version
from mallard.store.store import Store

# Of a batch from DuckDB to a file: small enough to hold a few, large enough to cost little each.
BATCH_ROWS = 16_384
# Of a file of visits; the last key names one, so that the same visits always make the same file.
SESSION_ORDER = "entry_page, started_at, first_position"


def write_merged(
    store: Store, connection: duckdb.DuckDBPyConnection, date: str, events: Sql
) -> Part:
    """Write one part of level 0; return it, uncommitted. events: of one date, at least one."""
    with store.merge_writer(date) as writer:
        for table in _tables(connection, f"{events} ORDER BY site_id, timestamp, position"):
            writer.write(table)
        return writer.finish_part()


def write_days(
    store: Store, connection: duckdb.DuckDBPyConnection, date: str, events: Sql
) -> list[Part | Derived]:
    """Write a part of level 1 and a file of visits for each site; return them, uncommitted.

    events: all events of a date and some sites, with the columns of `ARROW_SCHEMA`.
    """
    written: list[Part | Derived] = []
    try:
        ordered = f"{annotated(events)} ORDER BY site_id, {LEVEL_1_ORDER}"
        for site_id, pieces in groupby(_pieces(connection, ordered), key=lambda piece: piece[0]):
            with store.day_writer(site_id, date) as writer:
                for _, table in pieces:
                    writer.write(table)
                written.append(writer.finish_part())
        for part in [file for file in written if isinstance(file, Part)]:
            written.append(write_sessions(store, connection, (part,)))
    except BaseException:
        store.discard(written)
        raise
    return written


def write_sessions(
    store: Store, connection: duckdb.DuckDBPyConnection, parts: tuple[Part, ...]
) -> Derived:
    """Write the visits of a site-day that has these parts of level 1; return them, uncommitted."""
    date, (site_id,) = parts[0].date, parts[0].sites
    sources = {date: day_version(parts)}
    query = visits(annotated_rows_of([store.source(part) for part in parts]))
    with store.derived_writer("sessions", site_id, sources, SESSION_SCHEMA) as writer:
        for table in _tables(connection, f"{query} ORDER BY {SESSION_ORDER}"):
            writer.write(table)
        return writer.finish_derived()


def _tables(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    for batch in connection.sql(query).to_arrow_reader(BATCH_ROWS):
        yield pa.Table.from_batches([batch])


def _pieces(connection: duckdb.DuckDBPyConnection, ordered: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield rows in runs of one site."""
    for table in _tables(connection, ordered):
        runs = pc.run_end_encode(table["site_id"].combine_chunks())
        start = 0
        for site_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield site_id, table.slice(start, end - start)
            start = end
