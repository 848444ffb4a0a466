"""Makes the sums of whole site-days, whatever their number and their size, in a bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb

from mallard.chunks import chunks
from mallard.query.events import annotated_rows_of
from mallard.query.period import Slice
from mallard.query.rollup import make_rollup
from mallard.query.site_days import narrow
from mallard.query.sql import Sql, literal

# Of so many events sums are made at once: thirty statements cost a quarter of a second for one
# event. A month of 370,000 in days of 12,000 needs 38 of the 56 MiB that the least memory of a job
# leaves to queries so, and as long; all at once it needed 55, and now and then failed.
ROWS_AT_ONCE = 150_000
# Each statement opens its files again, which of a small day takes longer than all else: days with
# no more events than the first are put into memory, as many at once as the second.
SMALL_DAY_ROWS = 10_000
ROWS_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Summed:
    """A settled site-day whose sums are to be made.

    rows: how many events it has. parts, visits: where these and its visits are. slices: those that
    its date is cut into, if it is.
    """

    site_id: str
    rows: int
    parts: tuple[str, ...]
    visits: str
    slices: tuple[Slice, ...] = ()


def sum_up(connection: duckdb.DuckDBPyConnection, table: Sql, days: Iterable[Summed]) -> None:
    """Add the sums of days to a temporary table, which is made if it is not there.

    Raises duckdb.Error.
    """
    small, large = list[tuple[Summed, int]](), list[tuple[Summed, int]]()
    for day in days:
        (small if day.rows <= SMALL_DAY_ROWS else large).append((day, day.rows))
    for some in chunks(large, ROWS_AT_ONCE):
        turns = -(-sum(day.rows for day in some) // ROWS_AT_ONCE)
        make_rollup(connection, table, *_queries(some), _slices(some), turns)
    for some in chunks(small, ROWS_KEPT):
        make_rollup(connection, table, *_kept(connection, *_queries(some)), _slices(some))


def _slices(some: Sequence[Summed]) -> list[tuple[str, Slice]]:
    return [(day.site_id, piece) for day in some for piece in day.slices]


def _queries(some: Sequence[Summed]) -> tuple[Sql, Sql]:
    """Return queries for the events and the visits of some days."""
    events = narrow(annotated_rows_of([source for day in some for source in day.parts]))
    listed = ", ".join(literal(day.visits) for day in some)
    return events, Sql(f"FROM read_parquet([{listed}], hive_partitioning = false)")


def _kept(connection: duckdb.DuckDBPyConnection, events: Sql, visits: Sql) -> tuple[Sql, Sql]:
    """Put what these queries give into tables, and return queries for those."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kept_events AS {events}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kept_visits AS {visits}")
    return Sql("FROM kept_events"), Sql("FROM kept_visits")
