"""What a site's events come to, added up of site-days, wherever it is had cheapest.

Three tiers, one meaning: whole settled days without a filter and by at most one dimension are in
rollups, and so are the totals of their slices in the site's zone; of other settled days the sums
are kept from the last time, under the day's version; what is left is counted from events and their
visits, which of an open day are made up when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from itertools import groupby
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.counting import count_groups
from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.kept import Kept
from mallard.query.period import Slice
from mallard.query.rollup import SLICES, has_slice, is_true
from mallard.query.sessions import SESSION_SCHEMA
from mallard.query.site_days import SiteDays, narrow
from mallard.query.sql import Sql, literal
from mallard.query.sums import (
    TOTALS,
    Addable,
    Grouping,
    has_all,
    in_bucket,
    narrowed,
    packed,
    split,
    total,
    unpacked,
)
from mallard.query.tail import Tail
from mallard.store.encoding import PART_SCHEMA
from mallard.store.part import Derived
from mallard.store.snapshot import Day
from mallard.store.store import Readable

# How many events, or visits, of settled days are counted at once, and then kept: of a question that
# takes too long what was counted is not lost, and memory does not follow its period.
_COUNTED_AT_ONCE = 500_000
# So few rows of a whole period are kept in any case: a year by day takes no more than its months.
_KEPT_ROWS = 1_000
# Rows of files of sums that are read at once, a part of which has the dimension asked for.
_ROLLED_AT_ONCE = 2_000_000
# What is read of rollups: totals of a slice of a day, or of a whole day (null) what is asked for.
_WANTED = pa.schema(
    [
        ("date", pa.date32()),
        ("dimension", pa.string()),
        ("slice", pa.string()),
        ("number", pa.int32()),
        ("bucket", pa.int32()),
    ]
)


Q = TypeVar("Q", bound=Addable)
T = TypeVar("T")
# Counts pieces of site-days, given queries for the events and the visits of these whole days.
# What it returns of each has the columns of the question's `schema`, but for the bucket.
Count = Callable[[Session, Q, tuple[Sql, Sql], Sequence[Slice]], dict[Slice, pa.Table]]


@dataclass(frozen=True, slots=True)
class _Asked(Generic[Q]):
    """What is asked of which days, and how it is counted where it is not known."""

    days: SiteDays
    question: Q
    count: Count[Q]

    def counted(self, found: tuple[Sql, Sql], pieces: Sequence[Slice]) -> dict[Slice, pa.Table]:
        return self.count(self.days.session, self.question, found, pieces)


@dataclass(frozen=True, slots=True)
class Relations:
    """Queries for a site's events in a period, with `visit`, and for the visits of its days.

    The events lack what no report reads; see `site_days`. They can be read many times.
    """

    events: Sql
    visits: Sql


class Answers:
    """Answers from one store and one buffer's tail; any thread with a session may ask."""

    def __init__(self, store: Readable, tail: Tail, cache_bytes: int) -> None:
        self._store = store
        self._tail = tail
        self._kept = Kept(cache_bytes - cache_bytes // 2)
        # What is known of open days is of one version each, and events come in all the time: it
        # would drive out what is true for ever.
        self._kept_open = Kept(cache_bytes // 2)

    def version(self) -> Hashable:
        """Name what is stored now: the same question about the same version has one answer."""
        return self._tail.last_position, self._store.snapshot().version

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

        Columns: bucket (INT), each dimension's `column`, currency, and the grouping's quantities.
        Of money the rows with a currency count, and otherwise those without; of a group without
        events there is none, and others say nothing.
        """
        return self.added(session, grouping, pieces, count_groups)

    def added(
        self, session: Session, question: Q, pieces: Sequence[Slice], count: Count[Q]
    ) -> pa.Table:
        """Return what the answers of each piece come to, in the question's `schema`.

        question: says all that the answer hangs on but for the events; hashable. count: how it is
        counted. What it says of settled days is kept: it is not asked twice of the same.
        """
        with self._days(session, question.site_id, question.as_of_us) as days:
            tables = list(self._tables(_Asked(days, question, count), pieces))
        return total(question, tables)

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
            found += [days.open(rest, self._kept_open)] if rest else []
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

    def _tables(self, asked: _Asked[Q], pieces: Sequence[Slice]) -> Iterator[pa.Table]:
        days = asked.days
        settled: list[tuple[Slice, Day]] = []
        rest: list[Slice] = []
        for piece in pieces:
            if not days.has_events(piece.date):
                continue
            day = days.day(piece.date)
            if day is None:
                rest.append(piece)
            else:
                settled.append((piece, day))
        if settled:
            yield self._settled(asked, settled)
        if rest:
            yield self._open(asked, rest)

    def _open(self, asked: _Asked[Q], pieces: Sequence[Slice]) -> pa.Table:
        """Sums of open days, kept until something is stored."""
        days, question = asked.days, asked.question
        version = days.open_version(_dates(pieces), self._kept_open)
        key = "sums", question, version, _layout(pieces), pieces[0].bucket
        table = _known(self._kept_open, key, question)
        if table is None:
            found = days.open(_dates(pieces), self._kept_open)
            counted = asked.counted(found, pieces)
            tables = [in_bucket(sums, piece.bucket) for piece, sums in counted.items()]
            table = total(question, tables)
            self._kept_open.keep({key: narrowed(table)})
        return table

    def _settled(self, asked: _Asked[Q], pieces: Sequence[tuple[Slice, Day]]) -> pa.Table:
        """Sums of settled days, which are kept as a whole where that is little, or less than parts.

        Who looks at a screen asks the same again and again, and of a year.
        """
        days, question = asked.days, asked.question
        versions = [day.version for _, day in pieces]
        key = "settled", question, _layout([piece for piece, _ in pieces], versions)
        first = pieces[0][0].bucket
        if (known := _known(self._kept, key, question)) is not None:
            return in_bucket(unpacked(known), first)
        rolled: list[tuple[Slice, Derived]] = []
        scanned: list[tuple[Slice, str]] = []
        for piece, day in pieces:
            if sums := _rollup(days, question, piece, day):
                rolled.append((piece, sums))
            else:
                scanned.append((piece, day.version))
        tables = list(self._from_days(asked, scanned))
        if isinstance(question, Grouping):
            tables += self._from_rollups(days.session, question, rolled)
        whole = total(question, tables)
        rows = sum(table.num_rows for table in tables)
        if 2 * whole.num_rows <= rows or whole.num_rows <= _KEPT_ROWS:
            self._kept.keep({key: packed(in_bucket(whole, -first))}, question)
        return whole

    def _from_rollups(
        self, session: Session, grouping: Grouping, rolled: Sequence[tuple[Slice, Derived]]
    ) -> Iterator[pa.Table]:
        """Sums of days and their slices out of files, read once for the same ones of a month."""
        missing: dict[Hashable, tuple[Derived, list[Slice]]] = {}
        for location, of_file in groupby(rolled, lambda each: each[1].location):
            found = list(of_file)
            pieces = [piece for piece, _ in found]
            key = "rollup", grouping.by, location, _layout(pieces)
            table = self._kept.get(key)
            if table is None:
                missing[key] = found[0][1], pieces
            else:
                yield in_bucket(table, pieces[0].bucket)
        weighed = ((key, file.rows) for key, (file, _) in missing.items())
        for keys in _chunks(weighed, _ROLLED_AT_ONCE):
            read = _read_rollups(session, grouping, self._store, [missing[key] for key in keys])
            self._kept.keep(dict(zip(keys, read, strict=True)), grouping)
            for each, table in zip(keys, read, strict=True):
                yield in_bucket(table, missing[each][1][0].bucket)

    def _from_days(
        self, asked: _Asked[Q], pieces: Sequence[tuple[Slice, str]]
    ) -> Iterator[pa.Table]:
        """Sums of settled days: those that are kept, and those that are not, which then are.

        What the days of a month come to is kept beside them, when it is less than they are.
        """
        missing: dict[Hashable, list[tuple[Slice, str]]] = {}
        for _, some in groupby(pieces, lambda each: each[0].date[:7]):
            found = list(some)
            layout = _layout([piece for piece, _ in found], [version for _, version in found])
            key = "month", asked.question, layout
            table = _known(self._kept, key, asked.question)
            if table is None:
                missing[key] = found
            else:
                yield in_bucket(table, found[0][0].bucket)
        if not missing:
            return
        # The first and the last month come last, as of these a shifted period has other days: what
        # was kept last stays longest, and of other months their sums will do.
        ends = {piece.date[:7] for piece, _ in (pieces[0], pieces[-1])}
        ordered = sorted(missing.values(), key=lambda some: some[0][0].date[:7] in ends)
        counted = self._of_days(asked, [each for some in ordered for each in some])
        months: dict[Hashable, pa.Table] = {}
        for of_month, found in missing.items():
            first = found[0][0].bucket
            tables = [in_bucket(counted[piece], piece.bucket - first) for piece, _ in found]
            month = total(asked.question, tables)
            yield in_bucket(month, first)
            if 2 * month.num_rows <= sum(table.num_rows for table in tables):
                months[of_month] = packed(month)
        # After all days: they are worth more, and take little.
        self._kept.keep(months, asked.question)

    def _of_days(
        self, asked: _Asked[Q], pieces: Sequence[tuple[Slice, str]]
    ) -> dict[Slice, pa.Table]:
        days = asked.days
        keys = {
            piece: (asked.question, version, piece.date, piece.start_us, piece.end_us)
            for piece, version in pieces
        }
        known = {piece: _known(self._kept, key, asked.question) for piece, key in keys.items()}
        counted = {piece: table for piece, table in known.items() if table is not None}
        unknown = [piece for piece, table in known.items() if table is None]
        # Of slices of a day it is events that are read all the same.
        whole = all(piece.is_whole for piece in unknown)
        of_visits = isinstance(asked.question, Grouping) and asked.question.is_of_visits
        for some in _at_once(days, unknown, of_visits=whole and of_visits):
            found = asked.counted(days.settled(_dates(some)), some)
            self._kept.keep({keys[piece]: table for piece, table in found.items()}, asked.question)
            counted |= found
        return counted


def _known(kept_: Kept, key: Hashable, question: Addable) -> pa.Table | None:
    """Return what is kept under a key, if it is enough for a question."""
    table = kept_.get(key)
    return table if table is not None and has_all(question, table) else None


def _rollup(days: SiteDays, grouping: Addable, piece: Slice, day: Day) -> Derived | None:
    """Return the file that has the sums asked for of a piece of a settled day, if one has them."""
    if not isinstance(grouping, Grouping) or grouping.keep is not None or len(grouping.by) > 1:
        return None
    if grouping.by and not isinstance(grouping.by[0], Dimension):
        return None
    found = days.snapshot.rollups.get((grouping.site_id, piece.date[:7]))
    if found is None or not is_true(found, piece.date, day.version):
        return None
    if piece.is_whole:
        return found
    return found if not grouping.by and has_slice(found, piece) else None


def _layout(pieces: Sequence[Slice], versions: Sequence[str] = ()) -> bytes:
    """Name what of which days goes to which bucket, counted from that of the first piece."""
    first = pieces[0].bucket
    told = [(each.date, each.start_us, each.end_us, each.bucket - first) for each in pieces]
    # A year's would take more memory than what is kept under its name.
    return sha256(repr((told, versions)).encode()).digest()


def _at_once(days: SiteDays, pieces: Sequence[Slice], *, of_visits: bool) -> Iterator[list[Slice]]:
    """Divide settled days into what is counted at once; a large day is one for itself.

    of_visits: whether it is visits that are counted, rather than events.
    """
    dates = [list(of_date) for _, of_date in groupby(pieces, lambda each: each.date)]
    rows = [
        _rows_read(day, of_visits=of_visits) if (day := days.day(each[0].date)) else 0
        for each in dates
    ]
    for some in _chunks(zip(dates, rows, strict=True), _COUNTED_AT_ONCE):
        yield [piece for of_date in some for piece in of_date]


def _rows_read(day: Day, *, of_visits: bool) -> int:
    if of_visits and day.sessions:
        return day.sessions.rows
    return sum(part.rows for part in day.parts)


def _chunks(weighed: Iterable[tuple[T, int]], rows_max: int) -> Iterator[list[T]]:
    """Divide what has so many rows into lists with at most rows_max; what has more is alone."""
    chunk: list[T] = []
    rows = 0
    for each, more in weighed:
        if chunk and rows + more > rows_max:
            yield chunk
            chunk, rows = [], 0
        chunk.append(each)
        rows += more
    if chunk:
        yield chunk


def _read_rollups(
    session: Session,
    grouping: Grouping,
    store: Readable,
    wanted: Sequence[tuple[Derived, Sequence[Slice]]],
) -> list[pa.Table]:
    """Return the sums of some pieces of each file; buckets are counted from that of its first."""
    listed = ", ".join(literal(store.source(file)) for file, _ in wanted)
    by = grouping.by[0] if grouping.by else Dimension.TOTAL
    found = [(number, each) for number, (_, pieces) in enumerate(wanted) for each in pieces]
    columns = (
        [date.fromisoformat(each.date) for _, each in found],
        [str(by.value) if each.is_whole else SLICES for _, each in found],
        [None if each.is_whole else str(each.start_us) for _, each in found],
        [number for number, _ in found],
        [each.bucket - wanted[number][1][0].bucket for number, each in found],
    )
    taken = session.take(pa.table(columns, _WANTED))
    value = "".join(f"value AS {each.column}, " for each in grouping.by)
    dates = [each.date for _, each in found]
    dimensions = ", ".join(map(literal, sorted(set(columns[1]))))
    table = session.table(
        Sql(f"""
        SELECT number, bucket, {value} currency, {TOTALS}
        FROM read_parquet([{listed}], hive_partitioning = false)
        JOIN {taken} USING (date, dimension)
        WHERE dimension IN ({dimensions}) AND coalesce(value = slice, true)
            AND date BETWEEN DATE {literal(min(dates))} AND DATE {literal(max(dates))}
        GROUP BY ALL""")
    )
    tables = split(table, "number", {number: number for number in range(len(wanted))})
    return [tables[number] for number in range(len(wanted))]


def _dates(pieces: Sequence[Slice]) -> tuple[str, ...]:
    return tuple(sorted({piece.date for piece in pieces}))


def _no_days(session: Session) -> tuple[Sql, Sql]:
    return (
        narrow(Sql(f"FROM {session.take(PART_SCHEMA.empty_table())}")),
        Sql(f"FROM {session.take(SESSION_SCHEMA.empty_table())}"),
    )
