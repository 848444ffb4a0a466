"""What a site's events come to, added up of site-days, wherever it is had cheapest.

Three tiers, one meaning: whole settled days without a filter and by at most one dimension are in
rollups, and so are the totals of their slices in the site's zone; of other settled days the sums
are kept from the last time, under the day's version; what is left is counted from events and their
visits, which of an open day are made up when asked. What was made of answers is kept beside them,
under the version of all of its days.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from itertools import chain, groupby, islice
from typing import Generic, Protocol, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from mallard.chunks import chunks
from mallard.query.counting import count_groups
from mallard.query.engine import Session
from mallard.query.kept import Kept, Value
from mallard.query.period import Period, Slice, dates, micros
from mallard.query.rolled import file_of, sums_of_files
from mallard.query.running_sums import RunningSums, folded, read
from mallard.query.sessions import SESSION_SCHEMA
from mallard.query.site_days import SiteDays, narrow
from mallard.query.sql import Sql
from mallard.query.sums import (
    Addable,
    Grouping,
    compact,
    has_all,
    in_bucket,
    narrowed,
    packed,
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
# Of all that is kept the part that whole answers take, which are small.
_GIVEN_SHARE = 16
# Rows of files of sums that are read at once, a part of which has the dimension asked for.
_ROLLED_AT_ONCE = 1_000_000

Q = TypeVar("Q", bound=Addable)
T = TypeVar("T")
# Counts pieces of site-days, given queries for the events and the visits of these whole days: with
# a query for `start_us` of a piece and the columns of the question's `schema`, but for the bucket.
Count = Callable[[Session, Q, tuple[Sql, Sql], Sequence[Slice]], Sql]


@dataclass(frozen=True, slots=True)
class _Asked(Generic[Q]):
    """What is asked of which days, how it is counted where it is not known, and what it comes to.

    sums: gets at once what is too large to be held; all else is added to them later.
    """

    days: SiteDays
    question: Q
    count: Count[Q]
    sums: RunningSums

    def counted(
        self, found: tuple[Sql, Sql], pieces: Sequence[Slice], events: int
    ) -> Iterator[pa.Table | None]:
        """Yield what each piece comes to; None where that is too large, and is in the sums already.

        events: how many are counted, about.
        """
        session = self.days.session
        query = self.count(session, self.question, found, pieces)
        starts, most = [piece.start_us for piece in pieces], self.sums.part_bytes_max
        parts = read(session, query, events, "start_us", starts, most)
        for piece, sums in zip(pieces, parts, strict=True):
            if isinstance(sums, pa.Table):
                yield compact(self.question, sums)
            else:
                self.sums.add_query(Sql(f"SELECT *, {piece.bucket} AS bucket FROM ({sums})"))
                yield None

    def folded(
        self, tables: Iterable[pa.Table], first: int
    ) -> Generator[pa.Table, None, pa.Table | None]:
        """Yield what tables come to; return it, if it is worth to be kept beside them.

        first: the bucket that those of what is returned are counted from.
        """
        only: pa.Table | None = None
        for number, (found, rows) in enumerate(folded(self.question, tables)):
            whole = self.question.lessened(found)
            yield whole
            worth = 4 * whole.num_rows <= 3 * rows or whole.num_rows <= _KEPT_ROWS
            only = whole if number == 0 and worth else None
        if only is None or self.sums.are_large:
            return None
        return packed(in_bucket(only, -first))


class Asked(Protocol):
    """Whose events are asked about: a site's, of a period, as they were stored at an instant."""

    @property
    def site_id(self) -> str:
        """The site."""

    @property
    def period(self) -> Period:
        """When; of other UTC days than it touches nothing is known."""

    @property
    def as_of_us(self) -> int | None:
        """The instant; None for now."""


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
        self._kept_open = Kept(cache_bytes // 2 - cache_bytes // _GIVEN_SHARE)
        self._given = Kept(cache_bytes // _GIVEN_SHARE)
        self._at: SiteDays | None = None

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

    def answer(
        self, session: Session, asked: Asked, key: Hashable, make: Callable[[Answers], T]
    ) -> T:
        """Return what is made of answers; or what was made before, if nothing has changed since.

        Nobody may change it. make: gets answers that are all of one instant. key: says all that is
        made of what is known of the days asked about.
        """
        start_us, end_us = micros(asked.period.start), micros(asked.period.end)
        with self._days(session, asked.site_id, asked.as_of_us) as days:
            version = self._version(days, start_us, end_us)
            # Instants of an hour that comes twice are equal as they are, but not as numbers.
            of_days = key, asked.site_id, asked.as_of_us, start_us, end_us, version
            given: Value | None = self._given.get(of_days)
            if given is not None:
                return cast(T, given.value)
            at_once = copy(self)
            at_once._at = days
            made = make(at_once)
            self._given.keep({of_days: Value.of(made)})
            return made

    def sums(self, session: Session, grouping: Grouping, pieces: Sequence[Slice]) -> pa.Table | Sql:
        """Return the sums of each bucket and group, or the session's name for them: see `added`.

        Columns: bucket (INT), each dimension's `column`, currency, and the grouping's quantities.
        Of money the rows with a currency count, and otherwise those without; of a group without
        events there is none, and others say nothing.
        """
        return self.added(session, grouping, pieces, count_groups)

    def added(
        self, session: Session, question: Q, pieces: Sequence[Slice], count: Count[Q]
    ) -> pa.Table | Sql:
        """Return what the answers of each piece come to, in the question's `schema`.

        Where that is more than is held in Python's memory it is the name of a table of the session.
        question: says all that the answer hangs on but for the events; hashable. count: how it is
        counted. What it says of settled days is kept: it is not asked twice of the same.
        """
        sums = RunningSums(session, question)
        with self._days(session, question.site_id, question.as_of_us) as days:
            sums.add(self._tables(_Asked(days, question, count, sums), pieces))
        return sums.result()

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
        if self._at is not None:
            assert (site_id, as_of_us) == self._at.of, "an answer is of one site and instant"
            yield self._at
            return
        tail = self._tail.view()  # tail first, snapshot second: see query/events.py
        with self._store.reading() as snapshot:
            yield SiteDays(session, self._store, snapshot, tail, site_id, as_of_us)

    def _version(self, days: SiteDays, start_us: int, end_us: int) -> Hashable:
        """Name all there is of the days that a period touches.

        All panels of a screen ask for it, until something is stored.
        """
        key = "days", days.of, days.snapshot.version, days.open_dates, start_us, end_us
        known: Value | None = self._given.get(key)
        if known is None:
            known = Value.of(days.version(dates(start_us, end_us)))
            self._given.keep({key: known})
        version, rest = known.value
        return version, rest and days.open_version(rest, self._kept_open)

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
            yield from self._settled(asked, settled)
        if rest:
            yield from self._open(asked, rest)

    def _open(self, asked: _Asked[Q], pieces: Sequence[Slice]) -> Iterator[pa.Table]:
        """Sums of open days, kept until something is stored."""
        days, question = asked.days, asked.question
        version = days.open_version(_dates(pieces), self._kept_open)
        key = "sums", question, version, _layout(pieces), pieces[0].bucket
        table = _known(self._kept_open, key, question)
        if table is None:
            found = days.open(_dates(pieces), self._kept_open)
            events = days.open_events(_dates(pieces), self._kept_open)
            counted = zip(pieces, asked.counted(found, pieces, events), strict=True)
            tables = (in_bucket(sums, piece.bucket) for piece, sums in counted if sums is not None)
            whole = None
            for number, (table, _) in enumerate(folded(question, tables)):
                yield table
                whole = table if number == 0 else None
            if whole is not None and not asked.sums.are_large:
                self._kept_open.keep({key: narrowed(whole)})
        else:
            yield table

    def _settled(self, asked: _Asked[Q], pieces: Sequence[tuple[Slice, Day]]) -> Iterator[pa.Table]:
        """Sums of settled days, which are kept as a whole where that is little, or less than parts.

        Who looks at a screen asks the same again and again, and of a year.
        """
        days, question = asked.days, asked.question
        versions = [day.version for _, day in pieces]
        key = "settled", question, _layout([piece for piece, _ in pieces], versions)
        first = pieces[0][0].bucket
        if (known := _known(self._kept, key, question)) is not None:
            yield in_bucket(known, first)
            return
        rolled: list[tuple[Slice, Derived]] = []
        scanned: list[tuple[Slice, str]] = []
        for piece, day in pieces:
            if sums := file_of(days, question, piece, day):
                rolled.append((piece, sums))
            else:
                scanned.append((piece, day.version))
        tables = chain(self._from_days(asked, scanned), self._from_files(asked, rolled))
        whole = yield from asked.folded(tables, first)
        if whole is not None:
            self._kept.keep({key: whole}, question)

    def _from_files(
        self, asked: _Asked[Q], rolled: Sequence[tuple[Slice, Derived]]
    ) -> Iterator[pa.Table]:
        """Sums of days and their slices out of files, read once for the same ones of a month."""
        if not rolled:
            return
        grouping, session = asked.question, asked.days.session
        assert isinstance(grouping, Grouping), "no other sums are in files"
        missing: dict[Hashable, tuple[Derived, list[Slice]]] = {}
        for location, of_file in groupby(rolled, lambda each: each[1].location):
            found = list(of_file)
            pieces = [piece for piece, _ in found]
            key: Hashable = ("rollup", grouping.by, grouping.money, location, _layout(pieces))
            table = _known(self._kept, key, grouping)
            if table is None:
                missing[key] = found[0][1], pieces
            else:
                yield in_bucket(table, pieces[0].bucket)
        weighed = ((key, file.rows) for key, (file, _) in missing.items())
        for keys in chunks(weighed, _ROLLED_AT_ONCE):
            wanted = [missing[key] for key in keys]
            firsts = [pieces[0].bucket for _, pieces in wanted]
            query = sums_of_files(session, grouping, self._store, wanted)
            rows = sum(file.rows for file, _ in wanted)
            most = asked.sums.part_bytes_max
            of_files = read(session, query, rows, "number", range(len(keys)), most)
            for key, first, sums in zip(keys, firsts, of_files, strict=True):
                if isinstance(sums, pa.Table):
                    self._kept.keep({key: sums}, grouping)
                    yield in_bucket(sums, first)
                else:
                    moved = f"SELECT * REPLACE (bucket + {first} AS bucket) FROM ({sums})"
                    asked.sums.add_query(Sql(moved))

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
        ordered = sorted(missing.items(), key=lambda month: month[1][0][0].date[:7] in ends)
        of_days = self._of_days(asked, [each for _, some in ordered for each in some])
        months: dict[Hashable, pa.Table] = {}
        room = self._kept.bytes_max
        for of_month, found in ordered:
            first = found[0][0].bucket
            month = yield from asked.folded(islice(of_days, len(found)), first)
            # What is held until then is bounded too.
            if month is not None and month.get_total_buffer_size() <= room:
                months[of_month] = month
                room -= month.get_total_buffer_size()
        # After all days: they are worth more, and take little.
        self._kept.keep(months, asked.question)

    def _of_days(self, asked: _Asked[Q], pieces: Sequence[tuple[Slice, str]]) -> Iterator[pa.Table]:
        """Yield a table for each piece, without groups where it was added to the sums at once."""
        days = asked.days
        keys = {
            piece: (asked.question, version, piece.date, piece.start_us, piece.end_us)
            for piece, version in pieces
        }
        known = {piece: _known(self._kept, key, asked.question) for piece, key in keys.items()}
        unknown = [piece for piece, table in known.items() if table is None]
        # Of slices of a day it is events that are read all the same.
        whole = all(piece.is_whole for piece in unknown)
        of_visits = isinstance(asked.question, Grouping) and asked.question.is_of_visits
        at_once = _at_once(days, unknown, of_visits=whole and of_visits)
        counted = chain.from_iterable(self._of_chunk(asked, some, keys) for some in at_once)
        nothing = asked.question.schema.empty_table()
        for piece in keys:
            table = known.pop(piece)
            if table is None:
                table = next(counted)
            yield nothing if table is None else in_bucket(table, piece.bucket)

    def _of_chunk(
        self, asked: _Asked[Q], pieces: Sequence[Slice], keys: Mapping[Slice, Hashable]
    ) -> Iterator[pa.Table | None]:
        days, dates = asked.days, _dates(pieces)
        events = sum(_rows_read(day) for each in dates if (day := days.day(each)))
        counted = asked.counted(days.settled(dates), pieces, events)
        for piece, table in zip(pieces, counted, strict=True):
            if table is not None:
                self._kept.keep({keys[piece]: table}, asked.question)
            yield table


def _known(kept_: Kept, key: Hashable, question: Addable) -> pa.Table | None:
    """Return what is kept under a key, if it is enough for a question."""
    table = kept_.get(key)
    return table if table is not None and has_all(question, table) else None


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
    for some in chunks(zip(dates, rows, strict=True), _COUNTED_AT_ONCE):
        yield [piece for of_date in some for piece in of_date]


def _rows_read(day: Day, *, of_visits: bool = False) -> int:
    if of_visits and day.sessions:
        return day.sessions.rows
    return sum(part.rows for part in day.parts)


def _dates(pieces: Sequence[Slice]) -> tuple[str, ...]:
    return tuple(sorted({piece.date for piece in pieces}))


def _no_days(session: Session) -> tuple[Sql, Sql]:
    return (
        narrow(Sql(f"FROM {session.take(PART_SCHEMA.empty_table())}")),
        Sql(f"FROM {session.take(SESSION_SCHEMA.empty_table())}"),
    )
