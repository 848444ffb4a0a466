"""Sums of a site's events by dimensions and slices of time, wherever they are had cheapest.

Three tiers, one meaning: whole settled days without a filter and by at most one dimension are in
rollups; of other settled days the sums are kept from the last time, under the day's version; what
is left is counted from events and their visits, which of an open day are made up when asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.dimensions import By, Dimension, TimeSlice
from mallard.query.engine import Kept, Session
from mallard.query.events import annotated_rows_of, rows_of
from mallard.query.filters import Filter, kept
from mallard.query.metrics import SUMS, Quantity, shares
from mallard.query.period import Slice
from mallard.query.rollup import is_true
from mallard.query.rules import apply
from mallard.query.sessions import annotated, visits
from mallard.query.sql import Sql, literal
from mallard.query.tail import Tail, TailView
from mallard.store.part import Derived
from mallard.store.snapshot import Snapshot
from mallard.store.store import Store

# What neither dimensions, filters nor sums read; the widest columns are among them.
_UNREAD = ("url", "data", "metadata", "idempotency_key", "stream_id", "company_id", "anonymous_id")
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
    """What is summed up: a site's events that fit a filter, by the values of dimensions."""

    site_id: str
    by: tuple[By, ...] = ()
    keep: Filter | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question under way: a session, and the store and the tail at one instant."""

    session: Session
    snapshot: Snapshot
    tail: TailView
    grouping: Grouping

    def is_settled(self, day: str, open_days: set[str]) -> bool:
        """Whether a date's parts have its visits, and nothing else changes its numbers."""
        found = self.snapshot.days.get((self.grouping.site_id, day))
        return found is not None and found.sessions is not None and day not in open_days

    def has_events(self, day: str, open_days: set[str]) -> bool:
        """Whether there may be any on a date."""
        return day in open_days or (self.grouping.site_id, day) in self.snapshot.days


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
        tail = self._tail.view()  # tail first, snapshot second: see query/events.py
        with self._store.reading() as snapshot:
            asked = _Asked(session, snapshot, tail, grouping)
            tables = list(self._tables(asked, pieces))
        return _total(session, grouping, tables)

    def _tables(self, asked: _Asked, pieces: Sequence[Slice]) -> Iterator[pa.Table]:
        fresh = asked.tail.after(asked.snapshot.watermark, asked.grouping.site_id)
        open_days = _open_days(asked, fresh)
        rolled: list[tuple[Slice, Derived]] = []
        settled: list[Slice] = []
        rest: list[Slice] = []
        for piece in pieces:
            if not asked.is_settled(piece.date, open_days):
                rest.append(piece)
            elif piece.is_whole and (sums := _rollup(asked, piece.date)):
                rolled.append((piece, sums))
            else:
                settled.append(piece)
        if rolled:
            yield _from_rollups(asked, self._store, rolled)
        if settled:
            yield from self._from_days(asked, settled)
        rest = [piece for piece in rest if asked.has_events(piece.date, open_days)]
        if rest:
            yield from self._from_open_days(asked, rest, fresh)

    def _from_days(self, asked: _Asked, pieces: list[Slice]) -> Iterator[pa.Table]:
        """Sums of settled days: those that are kept, and those that are not, which then are."""
        missing: list[Slice] = []
        for piece in pieces:
            table = self._kept.get(_key(asked, piece))
            if table is None:
                missing.append(piece)
            elif table.num_rows:
                yield _in_bucket(table, piece.bucket)
        if not missing:
            return
        days = [asked.snapshot.days[asked.grouping.site_id, day] for day in _dates(missing)]
        parts = [self._store.source(part) for day in days for part in day.parts]
        sessions = [self._store.source(day.sessions) for day in days if day.sessions]
        listed = ", ".join(literal(each) for each in sessions)
        asked.session.view("events_asked", annotated_rows_of(parts))
        asked.session.view(
            "visits_asked",
            Sql(f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"),
        )
        found = _scan(asked, missing)
        self._kept.keep({_key(asked, piece): table for piece, table in found.items()})
        for piece, table in found.items():
            if table.num_rows:
                yield _in_bucket(table, piece.bucket)

    def _from_open_days(
        self, asked: _Asked, pieces: list[Slice], fresh: pa.Table | None
    ) -> Iterator[pa.Table]:
        """Sums of days that may change: visits are made up of all their events."""
        dates, site = _dates(pieces), asked.grouping.site_id
        key = ("open", site, dates, asked.snapshot.version, asked.tail.last_position)
        events = self._kept.get(key)
        if events is None:
            events = asked.session.table(annotated(self._open_rows(asked, dates, fresh)))
            events = events.select([c for c in events.column_names if c not in _UNREAD])
            self._kept.keep({key: events})
        asked.session.view("events_asked", Sql(f"FROM {asked.session.take(events)}"))
        asked.session.view("visits_asked", visits(Sql("FROM events_asked")))
        for piece, table in _scan(asked, pieces).items():
            if table.num_rows:
                yield _in_bucket(table, piece.bucket)

    def _open_rows(self, asked: _Asked, dates: tuple[str, ...], fresh: pa.Table | None) -> Sql:
        site, snapshot = asked.grouping.site_id, asked.snapshot
        parts = [
            self._store.source(part)
            for part in (
                *(part for part in snapshot.recent if part.date in dates and site in part.sites),
                *(
                    part
                    for day in dates
                    if (site, day) in snapshot.days
                    for part in snapshot.days[site, day].parts
                ),
            )
        ]
        sources = []
        if parts:
            stored = Sql(f"FROM ({rows_of(parts)}) WHERE site_id = {literal(site)}")
            sources.append(f"SELECT * FROM ({apply(stored, snapshot.rules)})")
        if fresh is not None:
            listed = ", ".join(f"DATE {literal(day)}" for day in dates)
            taken = asked.session.take(fresh)
            sources.append(f"SELECT * FROM {taken} WHERE timestamp::DATE IN ({listed})")
        return Sql(" UNION ALL BY NAME ".join(sources))


def _open_days(asked: _Asked, fresh: pa.Table | None) -> set[str]:
    """Return the dates whose numbers may differ from what their parts of level 1 say."""
    site = asked.grouping.site_id
    days = {part.date for part in asked.snapshot.recent if site in part.sites}
    days |= {day for rule in asked.snapshot.rules for of, day in rule.affected if of == site}
    if fresh is not None:
        found = pc.unique(pc.cast(fresh["timestamp"], pa.date32())).to_pylist()
        days |= {day.isoformat() for day in found}
    return days


def _rollup(asked: _Asked, day: str) -> Derived | None:
    """Return the file that has the sums asked for of a whole settled day, if one has them."""
    grouping = asked.grouping
    if grouping.keep is not None or len(grouping.by) > 1:
        return None
    if grouping.by and not isinstance(grouping.by[0], Dimension):
        return None
    found = asked.snapshot.rollups.get((grouping.site_id, day[:7]))
    version = asked.snapshot.days[grouping.site_id, day].version
    return found if found and is_true(found, day, version) else None


def _from_rollups(asked: _Asked, store: Store, rolled: Sequence[tuple[Slice, Derived]]) -> pa.Table:
    files = {each.location: each for _, each in rolled}
    listed = ", ".join(literal(store.source(each)) for each in files.values())
    wanted = asked.session.take(
        pa.table(
            {
                "date": pa.array([date.fromisoformat(piece.date) for piece, _ in rolled]),
                "bucket": pa.array([piece.bucket for piece, _ in rolled], pa.int32()),
            }
        )
    )
    by = asked.grouping.by[0] if asked.grouping.by else Dimension.TOTAL
    value = "".join(f"value AS {each.column}, " for each in asked.grouping.by)
    days = [piece.date for piece, _ in rolled]
    return asked.session.table(
        Sql(f"""
        SELECT bucket, {value} currency, {_TOTALS}
        FROM read_parquet([{listed}], hive_partitioning = false) JOIN {wanted} USING (date)
        WHERE dimension = {literal(by.value)}
            AND date BETWEEN DATE {literal(min(days))} AND DATE {literal(max(days))}
        GROUP BY ALL""")
    )


def _scan(asked: _Asked, pieces: Sequence[Slice]) -> dict[Slice, pa.Table]:
    """Count the groups of each piece of the days in `events_asked` and `visits_asked`."""
    whole = [piece for piece in pieces if piece.is_whole]
    sliced = [piece for piece in pieces if not piece.is_whole]
    found: dict[Slice, pa.Table] = {}
    stored, told = Sql("FROM events_asked"), Sql("FROM visits_asked")
    if whole:
        chosen = stored
        if sliced:
            listed = ", ".join(f"DATE {literal(day)}" for day in _dates(whole))
            chosen = Sql(f"FROM events_asked WHERE timestamp::DATE IN ({listed})")
        events = kept(chosen, told, asked.grouping.keep)
        table = _counted(asked.session, events, told, asked.grouping.by)
        found |= _split(table, "date", {date.fromisoformat(each.date): each for each in whole})
    if sliced:
        wanted = asked.session.take(
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
            FROM ({kept(stored, told, asked.grouping.keep)}) JOIN {wanted}
                ON timestamp::DATE = slice_date AND epoch_us(timestamp) >= slice_us
                    AND epoch_us(timestamp) < slice_end_us""")
        table = _counted(asked.session, events, told, (*asked.grouping.by, _SLICE))
        found |= _split(table, _SLICE.column, {each.start_us: each for each in sliced})
    return found


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


def _in_bucket(table: pa.Table, bucket: int) -> pa.Table:
    return table.append_column("bucket", pa.repeat(pa.scalar(bucket, pa.int32()), table.num_rows))


def _dates(pieces: Sequence[Slice]) -> tuple[str, ...]:
    return tuple(sorted({piece.date for piece in pieces}))


def _key(asked: _Asked, piece: Slice) -> Hashable:
    version = asked.snapshot.days[asked.grouping.site_id, piece.date].version
    return asked.grouping, version, piece.date, piece.start_us, piece.end_us
