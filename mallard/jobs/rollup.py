"""Keeps what can be derived from settled site-days: their visits, and the sums of their months.

Invariants: sums are made of whole site-days of one version, which the file names, and are read for
no other; it also names where a date was cut into slices. A month's file holds no day that is gone
or has changed, or that the site's zone cuts otherwise, once this has run. What fails leaves the
files as they were, and is tried again later without the old one.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from mallard.chunks import chunks
from mallard.clock import Clock
from mallard.config import StoreConfig
from mallard.errors import StorageError
from mallard.jobs.apart import Apart
from mallard.jobs.day_files import write_sessions
from mallard.jobs.ordering import BATCH_ROWS
from mallard.jobs.summing import Summed, sum_up
from mallard.jobs.worker import Worker
from mallard.query.period import Slice, slices_of_date
from mallard.query.rollup import ROLLUP_ORDER, ROLLUP_SCHEMA, is_true, source_of
from mallard.query.sessions import SESSIONS_VERSION
from mallard.query.sql import Sql, literal
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Change, Day, SiteDay, Snapshot
from mallard.store.store import Store, Writing
from mallard.telemetry import Telemetry

# How long what failed waits; then it is tried alone.
RETRY_SECONDS = 300.0
# Of so many events what is missing is made in one go, and goes live at once.
ROWS_LIVE_AT_ONCE = 500_000
_TABLE = Sql("sums_being_made")
_log = logging.getLogger(__name__)

SiteMonth = tuple[str, str]  # site, YYYY-MM
Zones = Mapping[str, ZoneInfo]  # by site; of one that is not there it is UTC
Cut = Callable[[str, str], list[Slice]]  # the slices of a site's date


@dataclass(frozen=True, slots=True)
class Work:
    """A site-month whose files are not as its days are. Dates are ISO, and sorted.

    visits: settled days without visits. made: settled days without sums. kept: days whose sums in
    the month's file are true. With neither kept nor made, the file goes.
    """

    site_id: str
    month: str
    visits: tuple[str, ...]
    made: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def key(self) -> SiteMonth:
        """Its site and month."""
        return self.site_id, self.month


@dataclass(frozen=True, slots=True)
class Task:
    """Site-months to make at once. snapshot: what is live of them; zones: those of their sites."""

    snapshot: Snapshot
    zones: Zones
    works: tuple[Work, ...]


def cut_by(zones: Zones) -> Cut:
    """Return how dates are cut by these zones; not at all gives no slice."""

    @cache
    def of_zone(zone: ZoneInfo, date: str) -> list[Slice]:
        slices = slices_of_date(date, zone)
        return slices if len(slices) > 1 else []

    def cut(site_id: str, date: str) -> list[Slice]:
        zone = zones.get(site_id)
        return of_zone(zone, date) if zone else []

    return cut


def plan(
    snapshot: Snapshot, cut: Cut | None = None, distrusted: Collection[SiteMonth] = ()
) -> list[Work]:
    """Return what to make, the newest months first.

    cut: None where it does not matter. distrusted: whose old sums not to copy.
    """
    visits: dict[SiteMonth, list[str]] = defaultdict(list)
    made: dict[SiteMonth, list[str]] = defaultdict(list)
    kept: dict[SiteMonth, list[str]] = defaultdict(list)
    for (site_id, date), day in snapshot.days.items():
        key = site_id, date[:7]
        file = snapshot.rollups.get(key) if key not in distrusted else None
        has_sums = file is not None and is_true(file, date, day.version)
        if file and has_sums and cut:
            has_sums = file.sources[date] == source_of(day.version, cut(site_id, date))
        if has_sums:
            kept[key].append(date)
        if (has_sums and _has_visits(day)) or not snapshot.is_settled(site_id, date):
            continue
        if not _has_visits(day):
            visits[key].append(date)
        if not has_sums:
            made[key].append(date)
    wrong = {
        key for key, file in snapshot.rollups.items() if len(file.sources) != len(kept.get(key, ()))
    }
    due = sorted({*visits, *made, *wrong}, key=lambda key: key[1], reverse=True)
    return [
        Work(*key, *(tuple(sorted(dates.get(key, ()))) for dates in (visits, made, kept)))
        for key in due
    ]


class Rollups:
    """The job; one thread runs it, any may ask how it goes."""

    def __init__(
        self,
        config: StoreConfig,
        store: Store,
        data: Path,
        room_bytes: Callable[[], int],
        clock: Clock,
        telemetry: Telemetry,
        zones: Callable[[], Zones] = dict,
        apart: Apart | None = None,
    ) -> None:
        """Begin with nothing to do; the arguments are those of `Compactor`.

        zones: returns those of the sites, as they are now; by default all are in UTC.
        """
        self._config = config
        self._store = store
        self._room_bytes = room_bytes
        self._clock = clock
        self._telemetry = telemetry
        self._zones = zones
        self._problems: dict[SiteMonth, str] = {}
        self._retry_at: dict[SiteMonth, float] = {}
        self._worker = Worker(config, store, data, apart)
        self._stopping = False
        self._nothing_to_do_in: tuple[int, Zones] = -1, {}  # a version of the store

    @property
    def problems(self) -> list[str]:
        """What keeps sums from being kept, a sentence each; answers are right without, and slow."""
        return [
            f"{site_id} has no sums of {month}: {why}"
            for (site_id, month), why in sorted(self._problems.items())
        ]

    def interrupt(self) -> None:
        """End what is under way, which then did not happen; call it until `run` has ended."""
        self._stopping = True
        self._worker.interrupt()

    def run(self) -> list[Derived]:
        """Make what is missing and return it; what fails is counted and comes again later."""
        live: list[Derived] = []
        zones = self._zones()
        cut = cut_by(zones)
        with self._store.reading() as snapshot:
            if (snapshot.version, zones) == self._nothing_to_do_in:
                return live
            due = plan(snapshot, cut, self._problems.keys())
            if not due:
                self._nothing_to_do_in = snapshot.version, zones
            for works in self._groups(snapshot, due):
                if self._stopping:
                    break
                live += self._try(snapshot, zones, works)
        return live

    def rebuild(self) -> list[Derived]:
        """Drop all visits and sums and make them anew; return what was made.

        What fails, `run` makes later. Raises StorageError when they could not be dropped.
        """
        if old := tuple(self._store.snapshot().derived):
            self._store.swap(Change("rebuild", removed=old))
        return self.run()

    def _groups(self, snapshot: Snapshot, due: Iterable[Work]) -> Iterator[list[Work]]:
        """Divide what is due into what is made at once and goes live at once."""
        weighed: list[tuple[Work, int]] = []
        for work in due:
            if work.key not in self._problems:
                rows = sum(_rows_of(snapshot, (work.site_id, date)) for date in work.made)
                weighed.append((work, rows))
            elif self._retry_at[work.key] <= self._clock.monotonic():
                yield [work]
        yield from chunks(weighed, ROWS_LIVE_AT_ONCE)

    def _try(self, snapshot: Snapshot, zones: Zones, works: list[Work]) -> list[Derived]:
        gone = [
            snapshot.rollups[work.key]
            for work in works
            if not work.kept and not work.made and work.key in snapshot.rollups
        ]
        try:
            written = self._make(snapshot, zones, works)
            self._store.swap(Change("rollup", tuple(written), tuple(gone)))
        # RuntimeError is how DuckDB says that it was interrupted; OSError is the disk's.
        except (StorageError, duckdb.Error, pa.ArrowException, RuntimeError, OSError) as error:
            if not self._stopping:
                self._fail(works, error)
            return []
        for work in works:
            self._problems.pop(work.key, None)
            self._retry_at.pop(work.key, None)
        return written

    def _fail(self, works: list[Work], error: Exception) -> None:
        self._telemetry.failures["rollup"] += 1
        for work in works:
            _log.error("no sums of %s for %s for now: %s", work.month, work.site_id, error)
            self._problems[work.key] = str(error)
            self._retry_at[work.key] = self._clock.monotonic() + RETRY_SECONDS

    def _make(self, snapshot: Snapshot, zones: Zones, works: list[Work]) -> list[Derived]:
        """Write the files of some site-months; return them, uncommitted."""
        days = {
            (work.site_id, date): snapshot.days[work.site_id, date]
            for work in works
            for date in sorted({*work.visits, *work.made})
        }
        parts = [part for day in days.values() for part in day.parts]
        room_bytes, needed = self._room_bytes(), sum(part.size_bytes for part in parts)
        if room_bytes < needed:
            raise StorageError(
                f"it needs {needed} bytes on the disk, and {max(0, room_bytes)} are free"
            )
        for part in parts:
            self._store.check(part)
        asked = {work.site_id: zones[work.site_id] for work in works if work.site_id in zones}
        task = Task(_of(snapshot, works), asked, tuple(works))
        rows = sum(part.rows for part in parts)
        return self._worker.do(write, task, rows, room_bytes - needed)


def write(store: Writing, connection: duckdb.DuckDBPyConnection, task: Task) -> list[Derived]:
    """Write the files of a task; return them, uncommitted."""
    snapshot, works, cut = task.snapshot, task.works, cut_by(task.zones)
    written: list[Derived] = []
    visits: dict[SiteDay, Derived] = {}
    try:
        without: dict[str, list[Part]] = defaultdict(list)  # by date, in order of site
        for work in sorted(works, key=lambda work: work.site_id):
            for date in work.visits:
                without[date] += snapshot.days[work.site_id, date].parts
        for parts in without.values():
            made = [
                file
                for file in write_sessions(store, connection, parts)
                if isinstance(file, Derived)
            ]
            written += made
            visits |= {(file.site_id, date): file for file in made for date in file.sources}
        days = [(work.site_id, date) for work in works for date in work.made]
        made_of = [_summed(store, snapshot, cut, day, visits.get(day)) for day in days]
        sum_up(connection, _TABLE, made_of)
        for work in works:
            old = snapshot.rollups.get(work.key)
            if work.made or (work.kept and old and len(old.sources) > len(work.kept)):
                written.append(_write_month(store, connection, snapshot, cut, work))
    except BaseException:
        store.discard(written)
        raise
    return written


def _summed(
    store: Writing, snapshot: Snapshot, cut: Cut, day: SiteDay, made: Derived | None
) -> Summed:
    """made: the day's visits, if they were just made."""
    visits = made or snapshot.days[day].sessions
    assert visits, "a day without visits is in work.visits"
    parts = tuple(store.source(part) for part in snapshot.days[day].parts)
    rows = _rows_of(snapshot, day)
    return Summed(day[0], rows, parts, store.source(visits), tuple(cut(*day)))


def _write_month(
    store: Writing, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, cut: Cut, work: Work
) -> Derived:
    """Write the sums of a month: those just made, and those that are true of its old file."""
    if work.kept:
        dates = ", ".join(literal(date) for date in work.kept)
        old = f"{_rows([store.source(snapshot.rollups[work.key])])} WHERE date IN ({dates})"
        connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {_TABLE} AS {old} LIMIT 0")
        connection.execute(f"INSERT INTO {_TABLE} BY NAME {old}")
    sources = {
        date: source_of(snapshot.days[work.site_id, date].version, cut(work.site_id, date))
        for date in sorted((*work.kept, *work.made))
    }
    ordered = connection.sql(
        f"FROM {_TABLE} WHERE site_id = $1 AND strftime(date, '%Y-%m') = $2 "
        f"ORDER BY {ROLLUP_ORDER}",
        params=[work.site_id, work.month],
    )
    with store.derived_writer("rollup", work.site_id, sources, ROLLUP_SCHEMA) as writer:
        for batch in ordered.to_arrow_reader(BATCH_ROWS):
            writer.write(pa.Table.from_batches([batch]))
        return writer.finish_derived()


def _of(snapshot: Snapshot, works: Iterable[Work]) -> Snapshot:
    """Return what a snapshot has of the months of these."""
    keys = {work.key for work in works}
    days = {key: day for key, day in snapshot.days.items() if (key[0], key[1][:7]) in keys}
    rollups = {key: file for key, file in snapshot.rollups.items() if key in keys}
    return replace(snapshot, recent=(), days=days, rollups=rollups, quarantined=())


def _rows_of(snapshot: Snapshot, day: SiteDay) -> int:
    return sum(part.rows for part in snapshot.days[day].parts)


def _has_visits(day: Day) -> bool:
    return day.sessions is not None and day.sessions.format == SESSIONS_VERSION


def _rows(sources: list[str]) -> Sql:
    listed = ", ".join(literal(source) for source in sources)
    return Sql(f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)")
