"""Sums of a site's events by dimensions and slices of time, wherever they are had cheapest.

Three tiers, one meaning: whole settled days without a filter and by at most one dimension are in
rollups; of other settled days the sums are kept from the last time, under the day's version; what
is left is counted from events and their visits, which of an open day are made up when asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.dimensions import By, Dimension, TimeSlice
from mallard.query.engine import Kept, Session
from mallard.query.filters import Filter, kept
from mallard.query.metrics import SUMS, Quantity, shares
from mallard.query.period import Slice
from mallard.query.rollup import is_true
from mallard.query.sessions import SESSION_SCHEMA
from mallard.query.site_days import SiteDays, narrow
from mallard.query.sql import Sql, literal
from mallard.query.tail import Tail
from mallard.store.encoding import PART_SCHEMA
from mallard.store.part import Derived
from mallard.store.snapshot import Day
from mallard.store.store import Store

_SLICE = TimeSlice()
_TOTALS = Sql(
    ", ".join(
        f"sum({each.value})::{'DECIMAL(38, 2)' if pa.types.is_decimal(each.type) else 'BIGINT'} "
        f"AS {each.value}"
        for each in Quantity
    )
)


@dataclass(frozen=True, slots=True)
class Grouping:
    """What is summed up: a site's events that fit a filter, by the values of dimensions.

    as_of_us: an instant, to count what was stored then; None for now.
    """

    site_id: str
    by: tuple[By, ...] = ()
    keep: Filter | None = None
    as_of_us: int | None = None


@dataclass(frozen=True, slots=True)
class Relations:
    """Queries for a site's events in a period, with `visit`, and for the visits of its days.

    The events lack what no report reads; see `site_days`. They can be read many times.
    """

    events: Sql
    visits: Sql


class Answers:
    """Answers from one store and one buffer's tail; any thread with a session may ask."""

    def __init__(self, store: Store, tail: Tail, cache_bytes: int) -> None:
        self._store = store
        self._tail = tail
        self._kept = Kept(cache_bytes)

    def version(self) -> Hashable:
        """Name what is stored now: the same question about the same version has one answer."""
        return self._tail.view().last_position, self._store.snapshot().version

    def first_date(self, site_id: str) -> date | None:
        """Return the UTC date of a site's first event; None without any."""
        tail = self._tail.view()
        snapshot = self._store.snapshot()
        days = [day for of, day in snapshot.days if of == site_id]
        days += [part.date for part in snapshot.recent if site_id in part.sites]
        found = [date.fromisoformat(min(days))] if days else []
        fresh = tail.after(snapshot.watermark, site_id)
        if fresh is not None:
            found.append(pc.min(pc.cast(fresh["timestamp"], pa.date32())).as_py())
        return min(found, default=None)

    def sums(self, session: Session, grouping: Grouping, pieces: Sequence[Slice]) -> pa.Table:
        """Return the sums of each bucket and group.

        Columns: bucket (INT), each dimension's `column`, currency, and each `Quantity`; see
        `metrics` for what a row with a currency is. A group without events has no row.
        """
        with self._days(session, grouping.site_id, grouping.as_of_us) as days:
            tables = list(self._tables(days, grouping, pieces))
        return _total(session, grouping, tables)

    @contextmanager
    def relations(
        self,
        session: Session,
        site_id: str,
        pieces: Sequence[Slice],
        as_of_us: int | None = None,
    ) -> Iterator[Relations]:
        """Give the events of a period, for reports that look at them one by one.

        pieces: of the whole period, in order. What is given is good until the context ends.
        """
        with self._days(session, site_id, as_of_us) as days:
            dates = [day for day in _dates(pieces) if days.has_events(day)]
            settled = [day for day in dates if days.day(day)]
            rest = [day for day in dates if not days.day(day)]
            found = [days.settled(settled)] if settled else []
            found += [days.open(rest, self._kept)] if rest else []
            if not found:
                found = [_no_days(session)]
            start, end = (pieces[0].start_us, pieces[-1].end_us) if pieces else (0, 0)
            events = " UNION ALL BY NAME ".join(f"({each})" for each, _ in found)
            told = " UNION ALL BY NAME ".join(f"({each})" for _, each in found)
            session.view(
                "asked_events",
                Sql(f"""
                    FROM ({events})
                    WHERE epoch_us(timestamp) >= {start} AND epoch_us(timestamp) < {end}"""),
            )
            session.view("asked_visits", Sql(told))
            yield Relations(Sql("FROM asked_events"), Sql("FROM asked_visits"))

    @contextmanager
    def _days(self, session: Session, site_id: str, as_of_us: int | None) -> Iterator[SiteDays]:
        tail = self._tail.view()  # tail first, snapshot second: see query/events.py
        with self._store.reading() as snapshot:
            yield SiteDays(session, self._store, snapshot, tail, site_id, as_of_us)

    def _tables(
        self, days: SiteDays, grouping: Grouping, pieces: Sequence[Slice]
    ) -> Iterator[pa.Table]:
        rolled: list[tuple[Slice, Derived]] = []
        settled: list[tuple[Slice, Hashable]] = []
        rest: list[Slice] = []
        for piece in pieces:
            if not days.has_events(piece.date):
                continue
            day = days.day(piece.date)
            if day is None:
                rest.append(piece)
            elif piece.is_whole and (sums := _rollup(days, grouping, piece.date, day)):
                rolled.append((piece, sums))
            else:
                key = grouping, day.version, piece.date, piece.start_us, piece.end_us
                settled.append((piece, key))
        if rolled:
            yield _from_rollups(days.session, grouping, self._store, rolled)
        yield from self._from_days(days, grouping, settled)
        if rest:
            found = days.open(_dates(rest), self._kept)
            yield from _in_buckets(_scan(days.session, grouping, found, rest))

    def _from_days(
        self, days: SiteDays, grouping: Grouping, pieces: Sequence[tuple[Slice, Hashable]]
    ) -> Iterator[pa.Table]:
        """Sums of settled days: those that are kept, and those that are not, which then are."""
        known = {piece: self._kept.get(key) for piece, key in pieces}
        yield from _in_buckets({piece: table for piece, table in known.items() if table})
        missing = [piece for piece, table in known.items() if table is None]
        if missing:
            found = days.settled(_dates(missing))
            counted = _scan(days.session, grouping, found, missing)
            key_of = dict(pieces)
            self._kept.keep({key_of[piece]: table for piece, table in counted.items()})
            yield from _in_buckets(counted)


def _rollup(days: SiteDays, grouping: Grouping, date_: str, day: Day) -> Derived | None:
    """Return the file that has the sums asked for of a whole settled day, if one has them."""
    if grouping.keep is not None or len(grouping.by) > 1:
        return None
    if grouping.by and not isinstance(grouping.by[0], Dimension):
        return None
    found = days.snapshot.rollups.get((grouping.site_id, date_[:7]))
    return found if found and is_true(found, date_, day.version) else None


def _from_rollups(
    session: Session,
    grouping: Grouping,
    store: Store,
    rolled: Sequence[tuple[Slice, Derived]],
) -> pa.Table:
    files = {each.location: each for _, each in rolled}
    listed = ", ".join(literal(store.source(each)) for each in files.values())
    wanted = session.take(
        pa.table(
            {
                "date": pa.array([date.fromisoformat(piece.date) for piece, _ in rolled]),
                "bucket": pa.array([piece.bucket for piece, _ in rolled], pa.int32()),
            }
        )
    )
    by = grouping.by[0] if grouping.by else Dimension.TOTAL
    value = "".join(f"value AS {each.column}, " for each in grouping.by)
    dates = [piece.date for piece, _ in rolled]
    return session.table(
        Sql(f"""
        SELECT bucket, {value} currency, {_TOTALS}
        FROM read_parquet([{listed}], hive_partitioning = false) JOIN {wanted} USING (date)
        WHERE dimension = {literal(by.value)}
            AND date BETWEEN DATE {literal(min(dates))} AND DATE {literal(max(dates))}
        GROUP BY ALL""")
    )


def _scan(
    session: Session, grouping: Grouping, found: tuple[Sql, Sql], pieces: Sequence[Slice]
) -> dict[Slice, pa.Table]:
    """Count the groups of each piece; found: queries for the events and visits of its days."""
    stored, told = found
    whole = [piece for piece in pieces if piece.is_whole]
    sliced = [piece for piece in pieces if not piece.is_whole]
    counted: dict[Slice, pa.Table] = {}
    if whole:
        chosen = stored
        if sliced:
            listed = ", ".join(f"DATE {literal(day)}" for day in _dates(whole))
            chosen = Sql(f"FROM ({stored}) WHERE timestamp::DATE IN ({listed})")
        table = _counted(session, kept(chosen, told, grouping.keep), told, grouping.by)
        counted |= _split(table, "date", {date.fromisoformat(each.date): each for each in whole})
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
            FROM ({kept(stored, told, grouping.keep)}) JOIN {wanted}
                ON timestamp::DATE = slice_date AND epoch_us(timestamp) >= slice_us
                    AND epoch_us(timestamp) < slice_end_us""")
        table = _counted(session, events, told, (*grouping.by, _SLICE))
        counted |= _split(table, _SLICE.column, {each.start_us: each for each in sliced})
    return counted


def _counted(session: Session, events: Sql, told: Sql, by: Sequence[By]) -> pa.Table:
    columns = "".join(f"{each.column}, " for each in by)
    return session.table(
        Sql(f"""
        SELECT date, {columns} currency, {SUMS}
        FROM ({shares(events, told, by)}) GROUP BY date, {columns} currency""")
    )


def _split(table: pa.Table, column: str, pieces: Mapping[object, Slice]) -> dict[Slice, pa.Table]:
    """Return the rows of each piece, which `column` names, in tables of their own."""
    ordered = table.sort_by(column)
    values = ordered[column].to_pylist()
    rows = ordered.drop_columns(
        [name for name in ("date", _SLICE.column) if name in ordered.column_names]
    )
    found: dict[Slice, pa.Table] = {}
    start = 0
    ends = [i for i in range(1, len(values)) if values[i] != values[i - 1]] + [len(values)]
    for end in ends if values else []:
        piece = pieces.get(values[start])
        if piece is not None:
            # A copy: a slice would keep the whole table in memory.
            found[piece] = rows.take(pa.array(range(start, end)))
        start = end
    empty = rows.slice(0, 0)
    return {piece: found.get(piece, empty) for piece in pieces.values()}


def _total(session: Session, grouping: Grouping, tables: Sequence[pa.Table]) -> pa.Table:
    columns = "".join(f"{each.column}, " for each in grouping.by)
    if not tables:
        tables = [_nothing(grouping)]
    taken = session.take(pa.concat_tables([_in_order(each, grouping) for each in tables]))
    return session.table(
        Sql(f"SELECT bucket, {columns} currency, {_TOTALS} FROM {taken} GROUP BY ALL")
    )


def _schema(grouping: Grouping) -> pa.Schema:
    return pa.schema(
        [
            ("bucket", pa.int32()),
            *((str(each.column), pa.string()) for each in grouping.by),
            ("currency", pa.string()),
            *((each.value, each.type) for each in Quantity),
        ]
    )


def _in_order(table: pa.Table, grouping: Grouping) -> pa.Table:
    schema = _schema(grouping)
    return table.select(schema.names).cast(schema)


def _nothing(grouping: Grouping) -> pa.Table:
    return _schema(grouping).empty_table()


def _in_buckets(tables: Mapping[Slice, pa.Table]) -> Iterator[pa.Table]:
    for piece, table in tables.items():
        if table.num_rows:
            bucket = pa.repeat(pa.scalar(piece.bucket, pa.int32()), table.num_rows)
            yield table.append_column("bucket", bucket)


def _dates(pieces: Sequence[Slice]) -> tuple[str, ...]:
    return tuple(sorted({piece.date for piece in pieces}))


def _no_days(session: Session) -> tuple[Sql, Sql]:
    return (
        narrow(Sql(f"FROM {session.take(PART_SCHEMA.empty_table())}")),
        Sql(f"FROM {session.take(SESSION_SCHEMA.empty_table())}"),
    )
