"""A store with a history: flushes, compacted days, visits and sums, under a clock that is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow.parquet as pq
import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.clock import Clock, utc_date
from mallard.config import StoreConfig
from mallard.event import Event, Frame, to_table
from mallard.files import Files
from mallard.jobs.compaction import Compactor
from mallard.jobs.rollup import cut_by
from mallard.query.events import annotated_rows_of
from mallard.query.rollup import ROLLUP_ORDER, ROLLUP_SCHEMA, make_rollup, source_of
from mallard.query.sql import Sql
from mallard.store.local import LocalStore
from mallard.store.snapshot import Change, Snapshot
from mallard.telemetry import Telemetry
from tests.factories import NOON_US, make_event
from tests.faults import Fault
from tests.sql import ask

# Some come down to others at each disk step of the same work; they are for the long run.
FAULTS = [
    pytest.param(
        fault,
        id=fault.name,
        marks=[pytest.mark.long] if fault in {Fault.EIO, Fault.ENOSPC, Fault.CRASH_AFTER} else [],
    )
    for fault in Fault
]
A, B, C = "a.example", "b.example", "c.example"


class SettableClock(Clock):
    """Says the time it was told."""

    def __init__(self, us: int = NOON_US) -> None:
        self.us = us

    def now_us(self) -> int:
        return self.us

    def pass_by(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


def date(day: int) -> str:
    """The UTC date so many days after 2024-05-01."""
    return utc_date(NOON_US + day * DAY_US).isoformat()


class Stored:
    """One store over a folder, and what tests do with it. Days count from 2024-05-01."""

    def __init__(
        self,
        data: Path,
        files: Files | None = None,
        day: int = 0,
        announce: Callable[[Snapshot], None] = lambda _: None,
    ) -> None:
        self.data = data
        self.clock = SettableClock(NOON_US + day * DAY_US)
        self.store = LocalStore(data, files or Files(), self.clock, announce)

    def flush(self, day: int, *sites: str) -> None:
        """Store an event for each site in one flush, some minutes apart."""
        first = self.store.snapshot().watermark + 1
        events = tuple(
            make_event(
                site_id=site,
                timestamp=NOON_US + day * DAY_US + (first + i) * 60_000_000,
                visitor_id=(first + i) % 3,
                pathname=f"/{(first + i) % 4}",
            )
            for i, site in enumerate(sites)
        )
        self.publish(events)

    def publish(self, events: Sequence[Event]) -> None:
        """Store these events in one flush."""
        first = self.store.snapshot().watermark + 1
        loaded_at = max(self.clock.us, self.store.snapshot().last_loaded_at)
        table = to_table([Frame(first, loaded_at, self.store.node, events)])
        self.store.publish(table, first + len(events) - 1)

    def settle(self) -> None:
        """Compact what is there of days that are over, as the job does."""
        at_once = StoreConfig(close_after_seconds=0, late_merge_seconds=0)
        compactor = Compactor(
            at_once, self.store, self.data, lambda: 2**40, self.clock, Telemetry()
        )
        compactor.run()
        assert compactor.problems == []

    def sum_up(self, site_id: str, *days: int, zone: str = "UTC") -> None:
        """Keep the sums of a site's settled days, all of one month, as a zone cuts them."""
        snapshot, cut = self.store.snapshot(), cut_by({site_id: ZoneInfo(zone)})
        found = {date(day): snapshot.days[site_id, date(day)] for day in days}
        slices = {day: cut(site_id, day) for day in found}
        sources = {day: source_of(each.version, slices[day]) for day, each in found.items()}
        events = [self.store.source(part) for each in found.values() for part in each.parts]
        visits = [self.store.source(each.sessions) for each in found.values() if each.sessions]
        with duckdb.connect() as connection:
            tables = annotated_rows_of(events), Sql(f"FROM read_parquet({visits})")
            wanted = [(site_id, piece) for of_day in slices.values() for piece in of_day]
            make_rollup(connection, Sql("sums"), *tables, wanted)
            rows = connection.sql(f"FROM sums ORDER BY {ROLLUP_ORDER}").to_arrow_table()
        with self.store.derived_writer("rollup", site_id, sources, ROLLUP_SCHEMA) as writer:
            writer.write(rows)
            self.store.swap(Change("rollup", added=(writer.finish_derived(),)))

    def positions(self) -> list[int]:
        """What the live parts hold, sorted."""
        return positions_in(self.store.source(part) for part in self.store.snapshot().parts)

    def rows_of(self, site_id: str, day: int) -> list[int]:
        """The positions of one site-day."""
        sources = [self.store.source(part) for part in self.store.snapshot().parts]
        if not sources:
            return []
        found = ask(
            "SELECT position FROM read_parquet($1, union_by_name = true, hive_partitioning = false)"
            " WHERE site_id = $2 AND timestamp::DATE = $3::DATE ORDER BY 1",
            [sources, site_id, date(day)],
        )
        return [row[0] for row in found]

    def close(self) -> None:
        self.store.close()


def positions_in(sources: Iterable[str]) -> list[int]:
    """The positions in Parquet files, sorted."""
    tables = [pq.ParquetFile(source).read(columns=["position"]) for source in sources]
    return sorted(row for table in tables for row in table["position"].to_pylist())
