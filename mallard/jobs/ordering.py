"""Gives rows of any number in an order, and visits of any number, in a bounded memory.

DuckDB sorts what is narrow beyond its memory, and not what is wide. So the places of all rows are
found first, from the few columns that say them, and written to a table in their order. Then the
rows are read a run of places at a time, as many as fit: sites and times of a run say which files,
and which pieces of them, hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import duckdb
import pyarrow as pa

from mallard.errors import StorageError
from mallard.event import ARROW_SCHEMA
from mallard.jobs.database import rows_bytes, use_disk
from mallard.jobs.pieces import SHAPED_BY, gathered, groups_of, make_shapes, shaped
from mallard.query.events import annotated_rows_of
from mallard.query.sessions import annotated, visits
from mallard.query.sql import Sql, literal
from mallard.store.encoding import LEVEL_1_KEYS
from mallard.store.part import Part
from mallard.store.store import Writing

# Of a batch from DuckDB to a file: small enough to hold a few, large enough to cost little each.
BATCH_ROWS = 16_384
# What DuckDB takes to sort an event, to gather a visit, but for long texts, to say which visit an
# event is of, and to sort its place, which it can spill but for so much. Measured.
ROW_BYTES = 512
VISIT_BYTES = 2_048
MARKED_BYTES = 64
PLACED_BYTES = 5
# Of the disk, what an event takes in the tables here, which is not bounded as what is spilled is.
SCRATCH_BYTES = 56
# Of a file of visits; the last key names one, so that the same visits always make the same file.
SESSION_ORDER = "entry_page, started_at, first_position"

# A run is some of these, and one at least, so it is short where each row has the longest texts.
_BLOCK_ROWS = 256
# What says which visit an event belongs to, and where it stands.
_OF_PLACES = "site_id, visitor_id, timestamp, position, event_type, event_name"
# Places are sorted some after the others, divided by so many of the keys they are sorted by; one
# event in so many says where.
_LEADING, _SAMPLED = 6, 256
_LONG_TEXTS = ("url", "referrer", "props", "data", "metadata")
_LONG_TEXTS_OF_VISITS = ("referrer", "pathname", "pathname")  # where it began, and where it ended


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows of a table next to each other: their sites, and from when to when they are."""

    first_row: int
    end_row: int
    first_site: str
    last_site: str
    since_us: int
    until_us: int
    bytes: int

    @property
    def rows(self) -> Sql:
        return Sql(f"rowid >= {self.first_row} AND rowid < {self.end_row}")

    def within(self, instant: str) -> Sql:
        """A condition that all of its rows fulfil, and of most others those nobody need read.

        instant: the column that says when a row is.
        """
        return Sql(
            f"site_id BETWEEN {literal(self.first_site)} AND {literal(self.last_site)} AND "
            f"{instant} BETWEEN make_timestamp({self.since_us}) AND make_timestamp({self.until_us})"
        )

    def joined(self, other: _Run) -> _Run:
        """Return this run and the one that follows it as one."""
        return _Run(
            self.first_row,
            other.end_row,
            self.first_site,
            other.last_site,
            min(self.since_us, other.since_us),
            max(self.until_us, other.until_us),
            self.bytes + other.bytes,
        )


def merged_rows(connection: duckdb.DuckDBPyConnection, events: Sql) -> Iterator[pa.Table]:
    """Yield events, with the columns of `ARROW_SCHEMA`, by site, timestamp and position."""
    order = ("site_id", "timestamp", "position")
    _place(connection, "site_id, timestamp, position, row_bytes", _narrow(events), order)
    for run in _runs(connection, "places", "timestamp", "timestamp"):
        yield from _rows_of_run(connection, events, run, [])
    connection.execute("DROP TABLE places")


def annotated_rows(
    connection: duckdb.DuckDBPyConnection, events: Sql
) -> Iterator[tuple[int, pa.Table]]:
    """Yield events, with the columns of `PART_SCHEMA`, by site and in `LEVEL_1_ORDER`.

    Each table is of one site and one row group; before it stands which group, by a number.
    events: all of a date and some sites, with the columns of `ARROW_SCHEMA`.
    """
    # First marked, then sorted: what does both would not fit in memory at once.
    _mark(connection, events)
    kept = "site_id, timestamp, position, visit, piece, row_bytes"
    _place(connection, kept, Sql("FROM marked"), ("site_id", *LEVEL_1_KEYS))
    connection.execute("DROP TABLE marked")
    pieces = connection.execute(
        "SELECT site_id, piece, count(*) FROM places GROUP BY ALL ORDER BY min(rowid)"
    ).fetchall()
    ordered = (
        table
        for run in _runs(connection, "places", "timestamp", "timestamp")
        for table in _rows_of_run(connection, events, run, ["visit"])
    )
    yield from _numbered(ordered, groups_of(pieces))
    connection.execute("DROP TABLE places")


def visits_of(
    store: Writing, connection: duckdb.DuckDBPyConnection, parts: Sequence[Part]
) -> Iterator[pa.Table]:
    """Yield the visits of parts of level 1, by site, and those of a run in `SESSION_ORDER`."""
    sources = [(part.sites[0], store.source(part)) for part in parts]
    for some, _, _ in visit_runs(connection, sources):
        yield from tables(connection, f"{some} ORDER BY site_id, {SESSION_ORDER}")


def visit_runs(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[tuple[str, str]]
) -> Iterator[tuple[Sql, Sql, Sql]]:
    """Yield queries for the visits of parts of level 1, a run of them each, and which these are.

    sources: site and place of each part, at least one. Which they are: rows of site_id, visitor_id
    and visit, until the next is asked for; and a condition that all of them fulfil, and of the
    other visits in a file few.
    """
    texts = " + ".join(f"coalesce(strlen({name}), 0)" for name in _LONG_TEXTS_OF_VISITS)
    _make(
        connection,
        "spans",
        "SELECT site_id, visitor_id, visit, min(timestamp) AS begins, max(timestamp) AS ends, "
        f"{VISIT_BYTES} + max({texts}) AS row_bytes "
        f"FROM ({annotated_rows_of([source for _, source in sources])}) "
        "WHERE visit IS NOT NULL GROUP BY ALL ORDER BY site_id, begins, visitor_id",
    )
    for run in _runs(connection, "spans", "begins", "ends"):
        some = [source for site, source in sources if run.first_site <= site <= run.last_site]
        which = Sql(f"SELECT (site_id, visitor_id, visit) FROM spans WHERE {run.rows}")
        events = Sql(
            f"SELECT * FROM ({annotated_rows_of(some)}) WHERE {run.within('timestamp')} AND "
            f"(site_id, visitor_id, visit) IN ({which})"
        )
        yield visits(events), which, run.within("started_at")
    connection.execute("DROP TABLE spans")


def visitor_shares(connection: duckdb.DuckDBPyConnection, events: Sql) -> list[Sql]:
    """Return conditions that divide events by their visitors, for as many at once as fit in memory.

    What joins events with their visits takes memory as there are visits, spilled or not.
    """
    ((rows,),) = connection.execute(f"SELECT count(*) FROM ({events})").fetchall()
    shares = 1 + rows * MARKED_BYTES // rows_bytes(connection)
    if shares == 1:
        return [Sql("true")]
    return [Sql(f"hash(visitor_id) % {shares} = {share}") for share in range(shares)]


def tables(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    """Yield what a query finds in pieces; raises StorageError and duckdb.Error."""
    batches = iter(connection.sql(query).to_arrow_reader(BATCH_ROWS))
    while True:
        try:
            batch = next(batches, None)
        except OSError as error:  # Arrow's word for what stops DuckDB in the middle of a result
            raise StorageError(f"A query over the store's files failed ({error}).") from error
        if batch is None:
            return
        yield pa.Table.from_batches([batch])


def _numbered(
    ordered: Iterable[pa.Table], group_rows: Sequence[int]
) -> Iterator[tuple[int, pa.Table]]:
    """Yield tables cut where row groups end, each with the number of its group."""
    group, left = -1, 0
    for table in ordered:
        start = 0
        while start < table.num_rows:
            if not left:
                group += 1
                left = group_rows[group]
            some = table.slice(start, left)
            yield group, some
            start += some.num_rows
            left -= some.num_rows


def _narrow(events: Sql, *more: str) -> Sql:
    texts = " + ".join(f"coalesce(strlen({name}), 0)" for name in _LONG_TEXTS)
    listed = ", ".join([_OF_PLACES, *more])
    return Sql(f"SELECT {listed}, {ROW_BYTES} + {texts} AS row_bytes FROM ({events})")


def _mark(connection: duckdb.DuckDBPyConnection, events: Sql) -> None:
    """Make a table `marked` of what says where events stand, some visitors after the others."""
    shares = visitor_shares(connection, events)
    if len(shares) > 1:
        use_disk(connection)
    make_shapes(connection, events)
    narrow = shaped(_narrow(events, *SHAPED_BY))
    if len(shares) > 1:  # events are read once, and not for each share
        connection.execute(f"CREATE OR REPLACE TABLE narrow AS {narrow}")
        narrow = Sql("FROM narrow")
    for number, share in enumerate(shares):
        _make(connection, "visited", annotated(Sql(f"FROM ({narrow}) WHERE {share}")))
        marked = f"SELECT * EXCLUDE (event_type) FROM ({gathered(Sql('FROM visited'))})"
        if number:
            connection.execute(f"INSERT INTO marked {marked}")
        else:
            _make(connection, "marked", marked)
    connection.execute("DROP TABLE visited; DROP TABLE shapes; DROP TABLE IF EXISTS narrow")


def _place(
    connection: duckdb.DuckDBPyConnection, kept: str, rows: Sql, keys: Sequence[str]
) -> None:
    """Make a table `places` of some columns of rows, in the order of keys, a share at a time."""
    ordered = f"ORDER BY {', '.join(keys)}"
    leading = ", ".join(keys[:_LEADING])
    ((count,),) = connection.execute(f"SELECT count(*) FROM ({rows})").fetchall()
    shares = 1 + count * PLACED_BYTES // rows_bytes(connection)
    sampled = f"SELECT {leading} FROM ({rows}) WHERE position % {_SAMPLED} = 0 ORDER BY ALL"
    found = connection.execute(sampled).fetchall() if shares > 1 else []
    borders = [found[share * len(found) // shares] for share in range(1, shares)] if found else []
    marks = f"({', '.join('?' * len(keys[:_LEADING]))})"
    passed = " + ".join(f"(({leading}) >= {marks})::INT" for _ in borders)
    values = list(chain.from_iterable(borders))
    for share in range(len(borders) + 1):
        # Not between two borders: DuckDB cannot compare several columns so.
        where = f"WHERE {passed} = {share}" if borders else ""
        query = f"SELECT {kept} FROM ({rows}) {where} {ordered}"
        _make(connection, "places", query, values, more=share > 0)


def _rows_of_run(
    connection: duckdb.DuckDBPyConnection, events: Sql, run: _Run, more: Sequence[str]
) -> Iterator[pa.Table]:
    listed = ", ".join([*ARROW_SCHEMA.names, *more])
    kept = ", ".join(["position AS placed", "rowid AS place", *more])
    # The places are what is kept in memory to be joined with, as it is written here. By its
    # estimates DuckDB would now and then choose the events, of which it would read too many.
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    yield from tables(
        connection,
        f"SELECT {listed} FROM ({events}) JOIN (SELECT {kept} FROM places WHERE {run.rows}) "
        f"ON position = placed WHERE {run.within('timestamp')} ORDER BY place",
    )
    connection.execute("RESET disabled_optimizers")


def _make(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    query: str,
    values: Sequence[object] = (),
    *,
    more: bool = False,
) -> None:
    """Make a table whose `rowid` is the place of a row in the query's order; more: add to it."""
    made = f"INSERT INTO {name}" if more else f"CREATE OR REPLACE TABLE {name} AS"
    connection.execute("SET preserve_insertion_order = true")
    connection.execute(f"{made} {query}", values)
    connection.execute("SET preserve_insertion_order = false")


def _runs(connection: duckdb.DuckDBPyConnection, table: str, since: str, until: str) -> list[_Run]:
    """Divide a table's rows into runs that the connection's memory has room for."""
    bytes_max = rows_bytes(connection)
    found = connection.execute(
        f"SELECT min(rowid), max(rowid) + 1, min(site_id), max(site_id), "
        f"epoch_us(min({since})), epoch_us(max({until})), sum(row_bytes)::BIGINT "
        f"FROM {table} GROUP BY rowid // {_BLOCK_ROWS} ORDER BY 1"
    )
    runs: list[_Run] = []
    # Those of millions of rows would take megabytes as Python's objects.
    some = iter(lambda: found.fetchmany(_BLOCK_ROWS), [])
    for block in (_Run(*values) for values in chain.from_iterable(some)):
        if runs and runs[-1].bytes + block.bytes <= bytes_max:
            runs[-1] = runs[-1].joined(block)
        else:
            runs.append(block)
    return runs
