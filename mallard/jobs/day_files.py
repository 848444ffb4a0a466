"""Writes the events of a UTC date to parts, and the visits of its sites, from queries over them.

What a date holds does not bound the memory it takes: small sites go together, a large one is cut by
visitor, so that what DuckDB sorts at once fits, and rows stream from it to the files. When
something here raises, nothing is left of what it wrote: StorageError, or `duckdb.Error`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mallard.errors import StorageError
from mallard.query.events import annotated_rows_of
from mallard.query.sessions import SESSION_SCHEMA, annotated, visits
from mallard.query.sql import Sql, literal
from mallard.store.encoding import LEVEL_1_ORDER, VISIT_BEGINS
from mallard.store.part import Derived, Part
from mallard.store.snapshot import day_version
from mallard.store.store import Store

# Of a batch from DuckDB to a file: small enough to hold a few, large enough to cost little each.
BATCH_ROWS = 16_384
# What DuckDB takes to sort a row, but for its long texts. Measured; with four times as many rows in
# memory it still got through, spilling.
ROW_BYTES = 512
# Of a file of visits; the last key names one, so that the same visits always make the same file.
SESSION_ORDER = "entry_page, started_at, first_position"

# What says which visit an event belongs to, and where it stands.
_OF_VISITS = "site_id, visitor_id, timestamp, position, event_type"
_INSTANTS = ("timestamp", "sent_at", "received_at", "loaded_at")
_LONG_TEXTS = ("url", "referrer", "props", "data", "metadata")


def write_merged(
    store: Store, connection: duckdb.DuckDBPyConnection, date: str, events: Sql
) -> Part:
    """Write one part of level 0; return it, uncommitted.

    events: of one date, at least one, with the columns of `ARROW_SCHEMA`.
    """
    with store.merge_writer(date) as writer:
        for table in _tables(connection, f"{events} ORDER BY site_id, timestamp, position"):
            writer.write(table)
        return writer.finish_part()


def write_days(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    date: str,
    events: Sql,
    memory_bytes: int,
) -> list[Part | Derived]:
    """Write parts of level 1 and a file of visits for each site; return them, uncommitted.

    events: all events of a date and some sites, with the columns of `ARROW_SCHEMA`. A site has one
    part, or several with different visitors where its rows would not fit in memory_bytes.
    """
    return _all_or_none(store, _write_days(store, connection, date, events, memory_bytes))


def write_sessions(
    store: Store, connection: duckdb.DuckDBPyConnection, parts: Sequence[Part]
) -> list[Part | Derived]:
    """Write the visits of site-days, those of one site to one file; return them, uncommitted.

    parts: of level 1 and one date, all that their site-days have, in order of site.
    """
    return _all_or_none(store, _write_sessions(store, connection, parts))


@dataclass(frozen=True, slots=True)
class _Group:
    """Sites next to each other, or one that is cut into slices of different visitors.

    whole_ms: whether all instants of their events are whole milliseconds.
    """

    first_site: str
    last_site: str
    slices: int
    whole_ms: bool

    def queries(self, events: Sql) -> Iterator[Sql]:
        """Yield a query for the events of each slice."""
        sites = f"site_id BETWEEN {literal(self.first_site)} AND {literal(self.last_site)}"
        for number in range(self.slices):
            # An event without a visitor belongs to no visit, so that any slice can have it.
            mine = f"hash(coalesce(visitor_id, position)) % {self.slices} = {number}"
            where = sites if self.slices == 1 else f"{sites} AND {mine}"
            yield Sql(f"SELECT * FROM ({events}) WHERE {where}")


def _groups(
    connection: duckdb.DuckDBPyConnection, events: Sql, memory_bytes: int
) -> Iterator[_Group]:
    """Divide sites into groups that take no more memory than that, as far as can be told."""
    whole = " AND ".join(f"coalesce(epoch_us({name}) % 1000 = 0, true)" for name in _INSTANTS)
    texts = " + ".join(f"coalesce(strlen({name}), 0)" for name in _LONG_TEXTS)
    sizes = connection.execute(
        f"SELECT site_id, sum({ROW_BYTES} + {texts})::BIGINT, bool_and({whole}) FROM ({events}) "
        "GROUP BY site_id ORDER BY site_id"
    ).fetchall()
    sites: list[str] = []
    total = 0
    all_whole = True
    for site_id, size_bytes, is_whole in sizes:
        if sites and total + size_bytes > memory_bytes:
            yield _Group(sites[0], sites[-1], -(-total // memory_bytes), all_whole)
            sites, total, all_whole = [], 0, True
        sites.append(site_id)
        total += size_bytes
        all_whole &= is_whole
    if sites:
        yield _Group(sites[0], sites[-1], -(-total // memory_bytes), all_whole)


def _write_days(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    date: str,
    events: Sql,
    memory_bytes: int,
) -> Iterator[Part | Derived]:
    for group in list(_groups(connection, events, memory_bytes)):
        parts: list[Part] = []
        for some in group.queries(events):
            for site_id, tables in _by_site(_tables(connection, _ordered(some))):
                with store.day_writer(site_id, date, whole_ms=group.whole_ms) as writer:
                    for table in tables:
                        writer.write(table)
                    parts.append(writer.finish_part())
                yield parts[-1]
        yield from _write_sessions(store, connection, parts)


def _ordered(events: Sql) -> Sql:
    """Return a query for events with their `visit`, in order of site and `LEVEL_1_ORDER`."""
    # All windows run over the few columns they need: over whole rows they took twice the memory.
    narrow = Sql(f"SELECT {_OF_VISITS} FROM ({events})")
    order = LEVEL_1_ORDER.replace(VISIT_BEGINS, "visit_begins")
    return Sql(f"""
        SELECT * EXCLUDE (visit_begins)
        FROM ({events}) JOIN (
            SELECT position, visit, {VISIT_BEGINS} AS visit_begins FROM ({annotated(narrow)})
        ) USING (position)
        ORDER BY site_id, {order}""")


def _write_sessions(
    store: Store, connection: duckdb.DuckDBPyConnection, parts: Sequence[Part]
) -> Iterator[Derived]:
    days = {site: list(some) for site, some in groupby(parts, key=lambda part: part.sites[0])}
    # The parts of a large site are taken one by one: no visitor is in two of them.
    runs = [parts] if len(days) == len(parts) else [[part] for part in parts]
    tables = (
        table
        for run in runs
        for table in _tables(
            connection,
            f"{visits(annotated_rows_of([store.source(part) for part in run]))} "
            f"ORDER BY site_id, {SESSION_ORDER}",
        )
    )
    for site_id, some in _by_site(tables):
        yield _write_visits(store, days.pop(site_id), some)
    for without in days.values():  # a file without rows says that there are none
        yield _write_visits(store, without, ())


def _write_visits(store: Store, parts: Sequence[Part], tables: Iterable[pa.Table]) -> Derived:
    ordered = tuple(sorted(parts, key=lambda part: part.first_position))
    sources = {parts[0].date: day_version(ordered)}
    writer = store.derived_writer("sessions", parts[0].sites[0], sources, SESSION_SCHEMA)
    with writer:
        for table in tables:
            writer.write(table)
        return writer.finish_derived()


def _tables(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    batches = iter(connection.sql(query).to_arrow_reader(BATCH_ROWS))
    while True:
        try:
            batch = next(batches, None)
        except OSError as error:  # Arrow's word for what stops DuckDB in the middle of a result
            raise StorageError(f"A query over the store's files failed ({error}).") from error
        if batch is None:
            return
        yield pa.Table.from_batches([batch])


def _by_site(tables: Iterable[pa.Table]) -> Iterator[tuple[str, Iterator[pa.Table]]]:
    """Yield each site with its rows in pieces, from rows in order of site."""
    for site_id, pieces in groupby(_pieces(tables), key=lambda piece: piece[0]):
        yield site_id, (table for _, table in pieces)


def _pieces(tables: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    for table in tables:
        runs = pc.run_end_encode(table["site_id"].combine_chunks())
        start = 0
        for site_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield site_id, table.slice(start, end - start)
            start = end


def _all_or_none(store: Store, files: Iterator[Part | Derived]) -> list[Part | Derived]:
    written: list[Part | Derived] = []
    try:
        for file in files:
            written.append(file)
    except BaseException:
        store.discard(written)
        raise
    return written
