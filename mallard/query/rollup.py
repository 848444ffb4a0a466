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


def sums(dimension: Dimension, annotated_events: Sql, visits: Sql) -> Sql:
    """Return a query for the sums of one dimension, with the columns of `ROLLUP_SCHEMA`.

    annotated_events: whole site-days, with `visit`. visits: theirs (`sessions.visits`).
    """
    return _sums(dimension, Sql(f"({shares(annotated_events, visits, [dimension])})"))


def make_rollup(
    connection: duckdb.DuckDBPyConnection, table: Sql, annotated_events: Sql, visits: Sql
) -> None:
    """Add the sums of all dimensions to a temporary table, which is made if it is not there.

    The queries, see `sums`, are read several times: views over files or tables are better than
    long ones. One dimension follows the other: as one statement it took ten times the memory.
    """
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
