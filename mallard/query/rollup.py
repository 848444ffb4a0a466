"""Sums kept for each site-day and value of a dimension: exact, and made again from events any time.

Every value is kept, however many there are. A row with a currency holds revenue and nothing else;
a value may have several of them, and one without.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from mallard.query.dimensions import EVENT_DIMENSIONS, VISIT_DIMENSIONS, Dimension
from mallard.query.metrics import SUMS, Quantity, shares
from mallard.query.sql import Sql, literal
from mallard.store.part import Derived

ROLLUP_VERSION = 1
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


def is_true(file: Derived, day: str, version: str) -> bool:
    """Whether a file's sums of a date (ISO) are those of that version of it."""
    return file.format == ROLLUP_VERSION and file.sources.get(day) == version


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
    slices: int = 1,
) -> None:
    """Add the sums of all dimensions to a temporary table, which is made if it is not there.

    The queries, see `sums`, are read several times: of files or tables, rather than long ones.
    slices: visitors are divided into so many, counted one after the other in the memory of one. For
    the same reason dimension follows dimension: as one statement all took ten times as much.
    """
    of_slices = table if slices == 1 else Sql("sums_of_slices")
    for number in range(slices):
        events, theirs = annotated_events, visits
        if slices > 1:
            # An event of no visitor belongs to no visit: any slice can have it.
            mine = f"hash(coalesce(visitor_id, position)) % {slices} = {number}"
            events = Sql(f"SELECT * FROM ({annotated_events}) WHERE {mine}")
            theirs = Sql(f"SELECT * FROM ({visits}) WHERE hash(visitor_id) % {slices} = {number}")
        _add_sums(connection, of_slices, events, theirs)
    if slices > 1:
        # A value's visitors of one slice are none of another's, so that all quantities add up.
        added = ", ".join(
            f"sum({each.value})::{_TYPES[each.type]} AS {each.value}" for each in Quantity
        )
        query = f"SELECT {_KEYS}, {added} FROM {of_slices} GROUP BY {_KEYS}"
        connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} AS {query} LIMIT 0")
        connection.execute(f"INSERT INTO {table} {query}")
        connection.execute(f"DROP TABLE {of_slices}")


_KEYS = "site_id, date, dimension, value, currency"
_TYPES = {pa.int64(): "BIGINT", pa.decimal128(38, 2): "DECIMAL(38, 2)"}


def _add_sums(
    connection: duckdb.DuckDBPyConnection, table: Sql, annotated_events: Sql, visits: Sql
) -> None:
    # A visit has one value of each visit dimension: events are grouped once for all of these.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE shared_by_dimensions AS "
        + shares(annotated_events, visits, VISIT_DIMENSIONS)
    )
    queries = [_sums(each, Sql("shared_by_dimensions")) for each in VISIT_DIMENSIONS]
    queries += [sums(each, annotated_events, visits) for each in EVENT_DIMENSIONS]
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} AS FROM ({queries[0]}) LIMIT 0")
    for query in queries:
        connection.execute(f"INSERT INTO {table} {query}")
    connection.execute("DROP TABLE shared_by_dimensions")


def _sums(dimension: Dimension, of_shares: Sql) -> Sql:
    return Sql(f"""
        SELECT site_id, date, {literal(dimension.value)} AS dimension, {dimension.column} AS value,
            currency, {SUMS}
        FROM {of_shares} GROUP BY site_id, date, {dimension.column}, currency""")
