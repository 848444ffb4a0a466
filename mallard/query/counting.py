"""Counts groups of events and of visits, in whole site-days and in slices of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import pyarrow as pa

from mallard.query.dimensions import TimeSlice
from mallard.query.engine import Session
from mallard.query.filters import kept, kept_loose, kept_visits
from mallard.query.metrics import (
    event_shares,
    loose_shares,
    money_shares,
    sums_of,
    whole_shares,
)
from mallard.query.period import Slice
from mallard.query.sql import Sql, literal
from mallard.query.sums import Grouping

_SLICE = TimeSlice()
_EVENTS = Sql("FROM counted_events")
_TOLD = Sql("FROM told_visits")
_ONE_SITE = Sql("")


def count_groups(
    session: Session, grouping: Grouping, found: tuple[Sql, Sql], pieces: Sequence[Slice]
) -> Sql:
    """Return a query for the sums of each piece: its `start_us` and what `Count` says.

    found: queries for the events and the visits of its days.
    """
    stored, told = found
    whole = [piece for piece in pieces if piece.is_whole]
    sliced = [piece for piece in pieces if not piece.is_whole]
    counted = []
    if whole:
        events, visits = stored, told
        if sliced:
            listed = ", ".join(
                f"DATE {literal(day)}" for day in sorted({piece.date for piece in whole})
            )
            events = Sql(f"FROM ({stored}) WHERE timestamp::DATE IN ({listed})")
            visits = Sql(f"FROM ({told}) WHERE date IN ({listed})")
        sums = _of_whole_days(grouping, events, visits)
        counted.append(f"SELECT epoch_us(date) AS start_us, * EXCLUDE (date) FROM ({sums})")
    if sliced:
        wanted = session.take(
            pa.table(
                {
                    "slice_us": [piece.start_us for piece in sliced],
                    "slice_end_us": [piece.end_us for piece in sliced],
                    "slice_date": [date.fromisoformat(piece.date) for piece in sliced],
                }
            )
        )
        # What a filter asks of a visit may have happened in another slice of the day.
        events = Sql(f"""
            SELECT * EXCLUDE (slice_end_us, slice_date)
            FROM ({kept(stored, _TOLD, grouping.keep)}) JOIN {wanted}
                ON timestamp::DATE = slice_date AND epoch_us(timestamp) >= slice_us
                    AND epoch_us(timestamp) < slice_end_us""")
        cut = replace(grouping, by=(*grouping.by, _SLICE))
        sums, start = _of_events(cut, events, told), _SLICE.column
        counted.append(f"SELECT {start} AS start_us, * EXCLUDE (date, {start}) FROM ({sums})")
    return Sql(" UNION ALL BY NAME ".join(counted))


def _of_whole_days(grouping: Grouping, stored: Sql, told: Sql) -> Sql:
    by, keep = grouping.by, grouping.keep
    if not grouping.is_of_visits:
        return _of_events(grouping, kept(stored, _TOLD, keep), told)
    # What visits say by themselves is had for a fraction: of events only those of none are read.
    of_shares = Sql(f"""
        {whole_shares(kept_visits(told, keep), by, site=_ONE_SITE)}
        UNION ALL BY NAME {loose_shares(kept_loose(stored, keep), by, site=_ONE_SITE)}""")
    return _summed(grouping, of_shares)


def _of_events(grouping: Grouping, events: Sql, told: Sql) -> Sql:
    """events: a query that reads visits from `told_visits`, told: what these are."""
    if grouping.money:
        of_shares = money_shares(_EVENTS, _TOLD, grouping.by, site=_ONE_SITE)
    else:
        of_shares = event_shares(_EVENTS, _TOLD, grouping.by, grouping.level, site=_ONE_SITE)
    # Both are read several times: files only once.
    return Sql(f"""
        WITH told_visits AS MATERIALIZED ({told}), counted_events AS MATERIALIZED ({events})
        {_summed(grouping, of_shares)}""")


def _summed(grouping: Grouping, of_shares: Sql) -> Sql:
    columns = "".join(f"{each.column}, " for each in grouping.by)
    return Sql(f"""
        SELECT date, {columns} currency, {sums_of(grouping.quantities)}
        FROM ({of_shares}) GROUP BY date, {columns} currency""")
