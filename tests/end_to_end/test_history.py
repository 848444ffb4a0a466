"""A store with a history of months, on the bulk path: the store and the jobs that the server has.

What is slow is not here: twenty million events take a quarter of an hour on two cores.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mallard.cli.benchmark.history import History
from mallard.clock import EPOCH
from mallard.config import StoreConfig
from mallard.files import Files
from mallard.jobs.backup import backup, restore
from mallard.jobs.compaction import Compactor
from mallard.jobs.rollup import Rollups
from mallard.jobs.verify import Findings, verify
from mallard.store.local import LocalStore
from mallard.store.reader import LocalReader
from mallard.telemetry import Telemetry
from tests.sql import ask
from tests.stored import SettableClock

EVENTS = 20_000_000
SITES, DAYS = 300, 90
FIRST_DAY = datetime.date(2026, 6, 1)
FLUSH_EVENTS = 20_000  # of one publish, as the flusher slices it


class Stopwatch:
    """Says how long each step took."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self.spent: dict[str, float] = {}

    def lap(self, step: str) -> None:
        """Add the time since the last lap to a step."""
        now = time.monotonic()
        self.spent[step] = self.spent.get(step, 0.0) + now - self._at
        self._at = now


def fill(data: Path, events: int, sites: int, days: int, watch: Stopwatch) -> dict[str, int]:
    """Store a history; return how many events each date has, as they were made."""
    clock, made = SettableClock(), {}
    store = LocalStore(data, Files(), clock)
    jobs = (StoreConfig(), store, data, lambda: 2**40, clock, Telemetry())
    compactor, rollups = Compactor(*jobs), Rollups(*jobs)
    history = History(sites=sites, events=events // days, first_day=FIRST_DAY)
    for number, (table, last) in enumerate(history.days(days)):
        watch.lap("generate")
        day = FIRST_DAY + datetime.timedelta(days=number)
        made[day.isoformat()] = table.num_rows
        for rows in _slices(table):
            store.publish(rows, rows["position"][-1].as_py())
        assert store.snapshot().watermark == last
        watch.lap("publish")
        midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
        clock.us = int((midnight - EPOCH).total_seconds() * 1e6) + 26 * 3600 * 1_000_000
        compactor.run()
        assert compactor.problems == []
        watch.lap("compact")
        store.sweep(hurry=True)
    rollups.run()
    assert rollups.problems == []
    store.sweep(hurry=True)
    store.close()
    watch.lap("sum up")
    return made


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, FLUSH_EVENTS):
        yield table.slice(start, FLUSH_EVENTS)


def check(data: Path, made: dict[str, int], sites: int) -> Findings:
    """Verify a folder, and count what it holds with a query of its own."""
    findings = verify(data, Files())
    assert (findings.problems, findings.notes) == ([], [])
    assert findings.part_rows == sum(made.values())
    with LocalReader(data, Files()) as store:
        snapshot = store.snapshot()
        assert snapshot.recent == ()
        assert len({site for site, _ in snapshot.days}) == sites
        counted: dict[str, int] = {}
        for (_, date), day in snapshot.days.items():
            counted[date] = counted.get(date, 0) + sum(part.rows for part in day.parts)
    assert counted == made
    rows = ask(
        "SELECT date::VARCHAR, count(*) FROM read_parquet($1, hive_partitioning = true) GROUP BY 1",
        [f"{data}/events/**/*.parquet"],
    )
    assert dict(rows) == made
    return findings


@pytest.mark.long
def test_months_of_events_are_verified_backed_up_restored_and_verified_again(
    tmp_path: Path,
) -> None:
    run(tmp_path, EVENTS, SITES, DAYS)


def run(folder: Path, events: int, sites: int, days: int) -> dict[str, float]:
    """Do it; return the seconds of each step, and sizes in bytes."""
    watch = Stopwatch()
    made = fill(folder / "data", events, sites, days, watch)
    first = check(folder / "data", made, sites)
    watch.lap("verify")
    assert backup(folder / "data", folder / "backup", Files()).problems == []
    watch.lap("back up")
    assert backup(folder / "data", folder / "backup", Files()).copied == 0
    watch.lap("back up again")
    shutil.rmtree(folder / "data")
    watch.lap("remove")
    assert restore(folder / "backup", folder / "restored", Files()).problems == []
    watch.lap("restore")
    again = check(folder / "restored", made, sites)
    watch.lap("verify again")
    assert (again.parts, again.part_bytes) == (first.parts, first.part_bytes)
    return {
        **watch.spent,
        "events": first.part_rows,
        "parts": first.parts,
        "part bytes": first.part_bytes,
        "derived": first.derived,
        "derived bytes": first.derived_bytes,
    }
