"""Drops site-days that are older than the settings keep, and brings them back within the grace.

Whole UTC days alone. What is dropped leaves every answer with one commit, which the store's history
keeps; its bytes wait out of sight until the grace is over. An event that comes in later for such a
day goes the same way. Invariant: a retired file of reason `REASON` holds nothing but what expired,
so that bringing it back neither loses nor doubles an event.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mallard.clock import Clock, utc_date
from mallard.config import RetentionConfig
from mallard.errors import StorageError
from mallard.event import ARROW_SCHEMA
from mallard.query.events import rows_of
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Change, Retired, SiteDay, Snapshot
from mallard.store.store import Store

REASON = "expiry"
REVIVED = "retention"  # what history says when days come back
SECONDS_PER_DAY = 86_400.0
# Rows in memory at a time while a part is rewritten.
BATCH_ROWS = 65_536
# Within one site, as parts of level 0 are.
_BY_TIME = [("timestamp", "ascending"), ("position", "ascending")]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is too old. days: site-days, sorted. whole: parts of nothing else. mixed: parts of
    level 0 that also hold days to keep. rollups: sums that one of the days is in.
    """

    days: tuple[SiteDay, ...]
    whole: tuple[Part, ...]
    mixed: tuple[Part, ...]
    rollups: tuple[Derived, ...]


def first_kept(config: RetentionConfig, site_id: str, today: datetime.date) -> str:
    """Return the earliest UTC date (ISO) of a site that is kept; "" when all are.

    With 1 day, today and yesterday are kept: as many whole days as were asked for.
    """
    days = config.sites.get(site_id, config.days)
    return (today - datetime.timedelta(days=days)).isoformat() if days else ""


def plan(snapshot: Snapshot, config: RetentionConfig, today: datetime.date) -> Plan:
    """Return what of a snapshot is older than the settings keep."""
    sites = {site for part in snapshot.recent for site in part.sites}
    sites |= {site_id for site_id, _ in snapshot.days}
    first = {site_id: first_kept(config, site_id, today) for site_id in sites}
    whole = [
        part
        for (site_id, date), day in snapshot.days.items()
        if date < first[site_id]
        for part in day.parts
    ]
    mixed: list[Part] = []
    for part in snapshot.recent:
        old = [part.date < first[site_id] for site_id in part.sites]
        if any(old):
            (whole if all(old) else mixed).append(part)
    days = {
        (site_id, part.date)
        for part in (*whole, *mixed)
        for site_id in part.sites
        if part.date < first[site_id]
    }
    rollups = [
        each
        for each in snapshot.rollups.values()
        if any((each.site_id, date) in days for date in each.sources)
    ]
    return Plan(tuple(sorted(days)), tuple(whole), tuple(mixed), tuple(rollups))


class Expiry:
    """The job: what is too old goes, what is not any more comes back."""

    def __init__(self, config: RetentionConfig, store: Store, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._clock = clock

    def run(self) -> None:
        """Apply the settings to what is stored.

        Raises StorageError; the next run goes on where this one ended.
        """
        today = utc_date(self._clock.now_us())
        self._bring_back(today)
        with self._store.reading() as snapshot:
            for part in plan(snapshot, self._config, today).mixed:
                self._split(part, today)
        old = plan(self._store.snapshot(), self._config, today)
        assert not old.mixed, "every part was split"
        rows = sum(part.rows for part in old.whole)
        if rows:
            self._store.swap(
                Change(
                    REASON,
                    removed=(*old.whole, *old.rollups),
                    lost_rows=rows,
                    lost_position_sum=sum(part.position_sum for part in old.whole),
                    keep_seconds=self._config.grace_days * SECONDS_PER_DAY,
                    detail={"rows": rows, "sites": spans(old.days)},
                )
            )
        self._drop_damaged(today)

    def _drop_damaged(self, today: datetime.date) -> None:
        """Remove what is in quarantine of days that are too old for all of its sites.

        At once: nobody could bring it back to life. A file that nobody knows any more stays.
        """
        old = tuple(
            part
            for part, _ in self._store.snapshot().quarantined
            if all(part.date < first_kept(self._config, site, today) for site in part.sites)
        )
        if rows := sum(part.rows for part in old):
            days = {(site_id, part.date) for part in old for site_id in part.sites}
            self._store.swap(
                Change(
                    REASON,
                    removed=old,
                    lost_rows=rows,
                    lost_position_sum=sum(part.position_sum for part in old),
                    detail={"rows": rows, "sites": spans(days), "damaged": len(old)},
                )
            )

    def _split(self, part: Part, today: datetime.date) -> None:
        """Put what is too old into a part of its own, so that it can go, and come back, alone."""
        old = {site for site in part.sites if part.date < first_kept(self._config, site, today)}
        self._store.check(part)
        written: list[Part] = []
        try:
            with (
                self._store.merge_writer(part.date) as going,
                self._store.merge_writer(part.date) as staying,
            ):
                for rows in _batches(self._store.source(part)):
                    goes = pc.is_in(rows["site_id"], pa.array(sorted(old), pa.string()))
                    going.write(rows.filter(goes))
                    staying.write(rows.filter(pc.invert(goes)))
                written.append(going.finish_part())
                written.append(staying.finish_part())
        except StorageError:
            self._store.discard(written)
            raise
        self._store.swap(Change("merge", added=tuple(written), removed=(part,)))

    # --- what comes back ---

    def _bring_back(self, today: datetime.date) -> None:
        """Make live again what expired and would be kept now."""
        now = self._clock.now_us()
        # A rule that was made since did not see them; what ends it looks into retired files too.
        rules = max((rule.created_at for rule in self._store.snapshot().rules), default=-1)
        wanted = [
            each
            for each in self._store.retired()
            if each.reason == REASON
            and each.remove_at > now
            and each.retired_at > rules
            and self._is_kept(each.file, today)
        ]
        recent = [each for each in wanted if _level(each) == 0]
        if recent:
            self._store.revive(recent, REVIVED)
        generations: dict[tuple[SiteDay, int], list[Retired]] = defaultdict(list)
        for each in wanted:
            if _level(each) != 0:
                generations[_site_day(each), each.version].append(each)
        at_once: list[Retired] = []
        seen: set[SiteDay] = set(self._store.snapshot().days)
        later: list[tuple[SiteDay, list[Retired]]] = []
        for (site_day, _), files in sorted(generations.items(), key=lambda item: item[0]):
            if site_day in seen:
                later.append((site_day, files))
            else:
                at_once += files
            seen.add(site_day)
        if at_once:
            self._store.revive(at_once, REVIVED)
        for site_day, files in later:
            # Visits were told apart in each part without the other: compaction does it anew.
            self._to_recent(site_day)
            self._store.revive([each for each in files if isinstance(each.file, Part)], REVIVED)

    def _is_kept(self, file: Part | Derived, today: datetime.date) -> bool:
        if isinstance(file, Derived):
            return file.kind == "sessions" and next(iter(file.sources)) >= first_kept(
                self._config, file.site_id, today
            )
        return any(file.date >= first_kept(self._config, site, today) for site in file.sites)

    def _to_recent(self, site_day: SiteDay) -> None:
        """Make a site-day's parts of level 1 parts of level 0 again."""
        with self._store.reading() as snapshot:
            parts = snapshot.days[site_day].parts
            written: list[Part] = []
            try:
                for part in parts:
                    self._store.check(part)
                    for rows in _batches(self._store.source(part)):
                        with self._store.merge_writer(part.date) as writer:
                            writer.write(
                                rows.sort_by(
                                    [("timestamp", "ascending"), ("position", "ascending")]
                                )
                            )
                            written.append(writer.finish_part())
            except StorageError:
                self._store.discard(written)
                raise
            self._store.swap(Change("merge", added=tuple(written), removed=parts))


def spans(days: Iterable[SiteDay]) -> dict[str, list[str]]:
    """Return the first and the last date of each site."""
    found: dict[str, list[str]] = {}
    for site_id, date in sorted(days):
        found.setdefault(site_id, [date, date])[1] = date
    return found


def rows_by_site(part: Part, source: str) -> dict[str, int]:
    """Return how many events of each site a part holds; source: where it is."""
    if len(part.sites) == 1:
        return {part.sites[0]: part.rows}
    with _connect() as connection:
        counted = connection.sql(
            f"SELECT site_id, count(*) FROM ({rows_of([source])}) GROUP BY ALL"
        )
        return dict(counted.fetchall())


def _batches(source: str) -> Iterator[pa.Table]:
    """Yield a part's rows, some at a time, in their order."""
    with _connect() as connection:
        for batch in connection.sql(rows_of([source])).to_arrow_reader(BATCH_ROWS):
            yield pa.Table.from_batches([batch]).cast(ARROW_SCHEMA)


def _connect() -> duckdb.DuckDBPyConnection:
    # One thread: a stream of rows needs no more, and keeps their order without holding many.
    return duckdb.connect(config={"threads": "1"})


def _level(retired: Retired) -> int | None:
    return retired.file.level if isinstance(retired.file, Part) else None


def _site_day(retired: Retired) -> SiteDay:
    file = retired.file
    if isinstance(file, Part):
        return file.sites[0], file.date
    return file.site_id, next(iter(file.sources))
