"""Sums kept for each site-day and value of a dimension: exact, and made again from events any time.

Every value is kept, however many there are. A row with a currency holds revenue and nothing else;
a value may have several of them, and one without.

A UTC date is cut where days of the site's time zone begin. Each of these slices has its own totals,
as who was there in both is one visitor of each. They are under the dimension SLICES; their value is
the slice's start, in microseconds since 1970. The manifest says of each date where it was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import duckdb
import pyarrow as pa

from mallard.clock import MICROSECONDS_PER_DAY
from mallard.query.dimensions import EVENT_DIMENSIONS, VISIT_DIMENSIONS, Dimension, TimeSlice
from mallard.query.metrics import SUMS, Quantity, shares
from mallard.query.period import Slice
from mallard.query.sql import Sql, literal
from mallard.store.part import Derived

ROLLUP_VERSION = 2
SLICES = "time:slice"
ROLLUP_SCHEMA = pa.schema(
    [
        pa.field("site_id", pa.string(), nullable=False),
        pa.field("date", pa.date32(), nullable=False),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("value", pa.string()),
        pa.field("currency", pa.string()),
        *(pa.field(each.value, each.type) for each in Quantity),
    ],
    metadata={"mallard.rollup_version": str(ROLLUP_VERSION)},
)
# How a file's rows lie: a query of one dimension and some dates reads few row groups.
ROLLUP_ORDER = Sql("dimension, date, value NULLS FIRST, currency NULLS FIRST")


def source_of(version: str, cut: Sequence[Slice]) -> str:
    """Name what sums of a date are made of: a version of it, and the slices that it is cut into."""
    return "@".join([version, *(str(each.start_us) for each in cut[1:])])


def is_true(file: Derived, day: str, version: str) -> bool:
    """Whether a file's sums of a date (ISO) are those of that version of it, however it was cut."""
    return file.format == ROLLUP_VERSION and file.sources.get(day, "").split("@")[0] == version


def cut_of(file: Derived, day: str) -> list[Slice]:
    """Return the slices of a date (ISO) whose totals a file has; none of one that was not cut."""
    cuts = [int(each) for each in file.sources[day].split("@")[1:]]
    if not cuts:
        return []
    start = cuts[0] - cuts[0] % MICROSECONDS_PER_DAY
    edges = [start, *cuts, start + MICROSECONDS_PER_DAY]
    return [Slice(day, first, end, 0) for first, end in pairwise(edges)]


def has_slice(file: Derived, piece: Slice) -> bool:
    """Whether a file, which is true of the date, has the totals of a slice of it."""
    of_file = cut_of(file, piece.date)
    return any((each.start_us, each.end_us) == (piece.start_us, piece.end_us) for each in of_file)


def sums(dimension: Dimension, annotated_events: Sql, visits: Sql) -> Sql:
    """Return a query for the sums of one dimension, with the columns of `ROLLUP_SCHEMA`.

    annotated_events: whole site-days, with `visit`. visits: theirs (`sessions.visits`).
    """
    return _sums(dimension, Sql(f"({shares(annotated_events, visits, [dimension])})"))


def make_rollup(
    connection: duckdb.DuckDBPyConnection,
    table: Sql,
    annotated_events: Sql,
    visits: Sql,
    cut: Sequence[tuple[str, Slice]] = (),
    turns: int = 1,
) -> None:
    """Add the sums of all dimensions to a temporary table, which is made if it is not there.

    The queries, see `sums`, are read several times: of files or tables, rather than long ones.
    cut: the slices of each site's dates that are cut, and no others.
    turns: visitors are divided into so many, counted one after the other in the memory of one. For
    the same reason dimension follows dimension: as one statement all took ten times as much.
    """
    connection.register("rollup_slices", _table_of(cut))
    of_turns = table if turns == 1 else Sql("sums_of_turns")
    for number in range(turns):
        events, theirs = annotated_events, visits
        if turns > 1:
            # An event of no visitor belongs to no visit: any turn can have it.
            mine = f"hash(coalesce(visitor_id, position)) % {turns} = {number}"
            events = Sql(f"SELECT * FROM ({annotated_events}) WHERE {mine}")
            theirs = Sql(f"SELECT * FROM ({visits}) WHERE hash(visitor_id) % {turns} = {number}")
        _add_sums(connection, of_turns, events, theirs, is_cut=bool(cut))
    connection.unregister("rollup_slices")
    if turns > 1:
        # A value's visitors of one turn are none of another's, so that all quantities add up.
        added = ", ".join(
            f"sum({each.value})::{_TYPES[each.type]} AS {each.value}" for each in Quantity
        )
        query = f"SELECT {_KEYS}, {added} FROM {of_turns} GROUP BY {_KEYS}"
        connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} AS {query} LIMIT 0")
        connection.execute(f"INSERT INTO {table} {query}")
        connection.execute(f"DROP TABLE {of_turns}")


_KEYS = "site_id, date, dimension, value, currency"
_TYPES = {pa.int64(): "BIGINT", pa.decimal128(38, 2): "DECIMAL(38, 2)"}
_SLICE = TimeSlice()


def _add_sums(
    connection: duckdb.DuckDBPyConnection,
    table: Sql,
    annotated_events: Sql,
    visits: Sql,
    *,
    is_cut: bool,
) -> None:
    # A visit has one value of each visit dimension: events are grouped once for all of these.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE shared_by_dimensions AS "
        + shares(annotated_events, visits, VISIT_DIMENSIONS)
    )
    queries = [_sums(each, Sql("shared_by_dimensions")) for each in VISIT_DIMENSIONS]
    queries += [sums(each, annotated_events, visits) for each in EVENT_DIMENSIONS]
    queries += [_sums_of_slices(annotated_events, visits)] if is_cut else []
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} AS FROM ({queries[0]}) LIMIT 0")
    for query in queries:
        connection.execute(f"INSERT INTO {table} {query}")
    connection.execute("DROP TABLE shared_by_dimensions")


def _sums(dimension: Dimension | TimeSlice, of_shares: Sql) -> Sql:
    name = SLICES if isinstance(dimension, TimeSlice) else dimension.value
    return Sql(f"""
        SELECT site_id, date, {literal(name)} AS dimension, {dimension.column}::VARCHAR AS value,
            currency, {SUMS}
        FROM {of_shares} GROUP BY site_id, date, {dimension.column}, currency""")


def _sums_of_slices(annotated_events: Sql, visits: Sql) -> Sql:
    """Only dates that are cut have them."""
    sliced = Sql(f"""
        SELECT * EXCLUDE (slice_site, slice_end_us)
        FROM ({annotated_events}) JOIN rollup_slices
            ON site_id = slice_site AND timestamp::DATE = slice_date
                AND epoch_us(timestamp) >= slice_us AND epoch_us(timestamp) < slice_end_us""")
    return _sums(_SLICE, Sql(f"({shares(sliced, visits, [_SLICE])})"))


def _table_of(cut: Sequence[tuple[str, Slice]]) -> pa.Table:
    rows = [
        (site_id, date.fromisoformat(each.date), each.start_us, each.end_us)
        for site_id, each in cut
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    kinds = (pa.string(), pa.date32(), pa.int64(), pa.int64())
    names = ["slice_site", "slice_date", "slice_us", "slice_end_us"]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return pa.table(arrays, names)
