from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet
import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import StoreConfig
from mallard.errors import MallardError
from mallard.files import Files
from mallard.jobs.apart import Apart
from mallard.jobs.compaction import Compactor
from mallard.jobs.rollup import RETRY_SECONDS, Rollups, Work, plan
from mallard.query.dimensions import Dimension
from mallard.query.metrics import Quantity
from mallard.query.rollup import ROLLUP_SCHEMA, SLICES, cut_of, is_true
from mallard.store.part import Derived
from mallard.store.snapshot import Change, Rule, Snapshot
from mallard.telemetry import Telemetry
from tests.every_step import assert_is_sound, at_every_step
from tests.factories import NOON_US
from tests.faults import EVERY, Crash, Fault, FaultyFiles, sample
from tests.sql import ask
from tests.stored import A, B, SettableClock, Stored, date

MAY = "2024-05"


def faults(*often: Fault) -> list[Any]:
    """Every fault as a parameter; all but these take their minutes in `make test-long` alone."""
    return [
        pytest.param(fault, marks=() if fault in often else pytest.mark.long, id=fault.name)
        for fault in Fault
    ]


class RunningClock(SettableClock):
    """Its monotonic time is set too."""

    def monotonic(self) -> float:
        return self.us / 1e6


class Room:
    """A store with the job over it."""

    def __init__(self, data: Path, files: Files | None = None, apart: Apart | None = None) -> None:
        self.stored = Stored(data, files)
        self.clock = RunningClock()
        self.telemetry = Telemetry()
        self.room_bytes = 1 << 30
        self.zones: dict[str, ZoneInfo] = {}
        self.job = Rollups(
            StoreConfig(),
            self.stored.store,
            data,
            lambda: self.room_bytes,
            self.clock,
            self.telemetry,
            lambda: dict(self.zones),
            apart,
        )

    @property
    def snapshot(self) -> Snapshot:
        return self.stored.store.snapshot()

    def settle(self, *days: int, sites: tuple[str, ...] = (A,)) -> None:
        for day in days:
            self.stored.flush(day, *sites)
        self.compact()

    def compact(self) -> None:
        """Settle every date, as the job does long after them."""
        clock = SettableClock(self.clock.us + 400 * DAY_US)
        store, telemetry = self.stored.store, Telemetry()
        Compactor(StoreConfig(), store, self.stored.data, lambda: 1 << 40, clock, telemetry).run()

    def views(self) -> dict[str, int | None]:
        """The pageviews that sums tell of the site's days; None where they tell nothing true."""
        views: dict[str, int | None] = {}
        for (site_id, day), stored in self.snapshot.days.items():
            file = self.snapshot.rollups.get((site_id, day[:7]))
            settled = self.snapshot.is_settled(site_id, day)
            if site_id == A:
                true = file and settled and is_true(file, day, stored.version)
                views[day] = self._total(file, day) if file and true else None
        return views

    def _total(self, file: Derived, day: str) -> int:
        (views,) = [
            int(row["pageviews"])
            for row in read(self, file)
            if row["dimension"] == "total" and str(row["date"]) == day
        ]
        return views


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.stored.close()


def test_a_settled_day_is_summed_up_once_and_read_instead_of_its_events(room: Room) -> None:
    room.settle(0, 1)
    assert room.views() == {date(0): None, date(1): None}
    (file,) = room.job.run()
    assert room.views() == {date(0): 1, date(1): 1}
    assert room.job.run() == []
    assert room.snapshot.rollups == {(A, MAY): file}


def test_a_month_has_one_file_and_a_new_day_goes_into_it_with_the_old_ones(room: Room) -> None:
    room.settle(0)
    room.job.run()
    room.settle(1, 31)
    room.job.run()
    assert set(room.snapshot.rollups) == {(A, MAY), (A, "2024-06")}
    assert list(room.snapshot.rollups[A, MAY].sources) == [date(0), date(1)]
    assert room.views() == {date(0): 1, date(1): 1, date(31): 1}


def test_a_late_event_takes_its_day_out_of_use_until_the_day_is_settled_and_summed_up_again(
    room: Room,
) -> None:
    room.settle(0, 1)
    room.job.run()
    room.stored.flush(0, A, A)
    assert room.views() == {date(0): None, date(1): 1}
    assert room.job.run() == []  # it is not settled
    room.compact()
    assert room.views() == {date(0): None, date(1): 1}
    room.job.run()
    assert room.views() == {date(0): 3, date(1): 1}


def test_a_day_that_a_late_event_came_for_before_its_sums_were_made_waits_for_it(
    room: Room,
) -> None:
    room.settle(0)
    room.stored.flush(0, A)
    assert room.job.run() == []
    room.compact()
    room.job.run()
    assert room.views() == {date(0): 2}


def test_site_months_are_made_together_and_each_has_its_own_file(room: Room) -> None:
    room.settle(0, 1, sites=(A, B, A))
    room.job.run()
    assert set(room.snapshot.rollups) == {(A, MAY), (B, MAY)}
    for (site_id, _), file in room.snapshot.rollups.items():
        rows = [row for row in read(room, file) if row["dimension"] == "total"]
        assert {row["site_id"] for row in rows} == {site_id}
        assert [row["pageviews"] for row in rows] == ([2, 2] if site_id == A else [1, 1])


def test_a_large_day_is_counted_in_slices_with_the_same_result(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.settle(0, 1, sites=(A,) * 9)
    (whole,) = room.job.run()
    rows = read(room, whole)
    room.stored.store.swap(Change("check", removed=(whole,)))
    monkeypatch.setattr("mallard.jobs.summing.ROWS_AT_ONCE", 4)
    (sliced,) = room.job.run()
    assert read(room, sliced) == rows
    room.stored.store.swap(Change("check", removed=(sliced,)))
    monkeypatch.setattr("mallard.jobs.summing.SMALL_DAY_ROWS", 4)
    (from_files,) = room.job.run()
    assert read(room, from_files) == rows


def test_a_site_that_moves_to_another_zone_has_its_days_cut_anew_and_no_day_is_wrong_meanwhile(
    room: Room,
) -> None:
    def cuts() -> dict[str, list[int]]:
        file = room.snapshot.rollups[A, MAY]
        return {
            day: [each.start_us // 3_600_000_000 % 24 for each in cut_of(file, day)]
            for day in file.sources
        }

    room.settle(0, 1, sites=(A, B))
    room.job.run()
    of_b, before = room.snapshot.rollups[B, MAY], room.views()
    assert cuts() == {date(0): [], date(1): []}
    room.zones[A] = ZoneInfo("America/New_York")
    assert room.views() == before  # what is of whole days is still true
    room.job.run()
    assert cuts() == {date(0): [0, 4], date(1): [0, 4]}
    assert room.views() == before
    slices = [
        row["value"]
        for row in read(room, room.snapshot.rollups[A, MAY])
        if row["dimension"] == SLICES
    ]
    assert slices == [str(NOON_US + day * DAY_US - 8 * 3_600_000_000) for day in (0, 1)]
    assert room.snapshot.rollups[B, MAY] == of_b
    assert room.job.run() == []
    room.zones[A] = ZoneInfo("Asia/Kolkata")
    room.job.run()
    assert cuts() == {date(0): [0, 18], date(1): [0, 18]}


def test_a_day_that_a_rule_changes_is_neither_summed_up_nor_read(room: Room) -> None:
    room.settle(0, 1)
    room.job.run()
    rule = Rule("r1", 1, 10, "{}", frozenset({(A, date(0))}))
    room.stored.store.swap(Change("rule", rules_added=(rule,)))
    assert room.views() == {date(0): None, date(1): 1}
    assert room.job.run() == []


def test_sums_of_an_older_format_are_made_anew(room: Room) -> None:
    room.settle(0)
    (file,) = room.job.run()
    old = dataclasses.replace(file, format=0)
    snapshot = dataclasses.replace(room.snapshot, rollups={(A, MAY): old})
    assert not is_true(old, date(0), room.snapshot.days[A, date(0)].version)
    assert plan(snapshot) == [Work(A, MAY, visits=(), made=(date(0),), kept=())]


def test_a_day_that_is_gone_leaves_the_file_and_the_last_one_takes_it_along(room: Room) -> None:
    room.settle(0, 1)
    room.job.run()
    for day in (0, 1):
        (part,) = room.snapshot.days[A, date(day)].parts
        change = Change("expiry", removed=(part,), lost_rows=1, lost_position_sum=day + 1)
        room.stored.store.swap(change)
        room.job.run()
        kept = [list(file.sources) for file in room.snapshot.rollups.values()]
        assert kept == ([[date(1)]] if day == 0 else [])
        dates = {
            row
            for file in room.snapshot.rollups.values()
            for row in ask("SELECT date FROM read_parquet($1)", [room.stored.store.source(file)])
        }
        assert dates == ({(datetime.date.fromisoformat(date(1)),)} if day == 0 else set())


def test_visits_that_are_lost_are_made_again_from_the_parts(room: Room) -> None:
    room.settle(0)
    room.job.run()
    before = room.snapshot.days[A, date(0)].sessions
    assert before is not None
    rows = read(room, before)
    room.stored.store.swap(Change("check", removed=(before,)))
    assert plan(room.snapshot) == [Work(A, MAY, visits=(date(0),), made=(), kept=(date(0),))]
    room.job.run()
    after = room.snapshot.days[A, date(0)].sessions
    assert after is not None and read(room, after) == rows
    assert plan(room.snapshot) == []


def read(room: Room, file: Derived) -> list[dict[str, Any]]:
    table = pa.parquet.read_table(room.stored.store.source(file), partitioning=None)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_a_file_says_its_format_and_is_sorted_for_a_query_of_one_dimension(room: Room) -> None:
    room.settle(1, 0)
    (file,) = room.job.run()
    with pa.parquet.ParquetFile(room.stored.store.source(file)) as parquet:
        assert parquet.schema_arrow.names == ROLLUP_SCHEMA.names
        assert parquet.schema_arrow.metadata[b"mallard.rollup_version"] == b"2"
        assert parquet.metadata.row_group(0).column(2).statistics is not None
    rows = [(row["dimension"], row["date"], row["value"] or "") for row in read(room, file)]
    assert rows == sorted(rows)
    assert file.rows == len(rows) > len(Quantity)


def test_old_sums_that_cannot_be_read_are_made_anew_after_a_while(room: Room) -> None:
    room.settle(0)
    (file,) = room.job.run()
    path = Path(room.stored.store.source(file))
    path.write_bytes(bytes(path.stat().st_size))
    room.settle(1)
    assert room.job.run() == []
    assert len(room.job.problems) == room.telemetry.failures["rollup"] == 1
    assert room.job.run() == []
    room.clock.pass_by(RETRY_SECONDS)
    room.job.run()
    assert room.job.problems == []
    assert room.views() == {date(0): 1, date(1): 1}


def test_without_room_on_the_disk_nothing_is_written_and_the_reason_is_told(room: Room) -> None:
    room.settle(0)
    room.room_bytes = 10
    assert room.job.run() == []
    (problem,) = room.job.problems
    assert "10 are free" in problem
    room.clock.pass_by(RETRY_SECONDS)
    room.room_bytes = 1 << 30
    assert len(room.job.run()) == 1


def test_an_interrupted_run_leaves_nothing_behind(room: Room) -> None:
    room.settle(0)
    room.job.interrupt()
    assert room.job.run() == []
    assert room.job.problems == []
    assert list((room.stored.data / "rollups").glob("**/*.parquet*")) == []


# --- every disk step ---


@pytest.fixture
def few_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    # Statements cost time and no disk step.
    monkeypatch.setattr("mallard.query.rollup.VISIT_DIMENSIONS", (Dimension.TOTAL,))
    monkeypatch.setattr("mallard.query.rollup.EVENT_DIMENSIONS", (Dimension.PAGE,))


def build_sums(stored: Stored) -> None:
    stored.flush(0, A, A, A)
    stored.flush(31, A)
    clock = SettableClock(NOON_US + 400 * DAY_US)
    config, data = StoreConfig(), stored.data
    Compactor(config, stored.store, data, lambda: 1 << 40, clock, Telemetry()).run()
    job_over(stored).run()


def job_over(stored: Stored) -> Rollups:
    store, clock = stored.store, stored.clock
    return Rollups(StoreConfig(), store, stored.data, lambda: 1 << 40, clock, Telemetry())


@EVERY
@pytest.mark.usefixtures("few_dimensions")
@pytest.mark.parametrize("fault", faults(Fault.POWER_LOSS))
def test_whatever_step_of_a_rebuild_fails_no_event_is_touched_and_the_job_makes_the_rest(
    fault: Fault, every: int, tmp_path: Path
) -> None:
    def rebuild(stored: Stored) -> None:
        job_over(stored).rebuild()
        stored.store.sweep(hurry=True)

    for after in at_every_step(tmp_path, fault, build_sums, rebuild, day=0, every=every):
        assert_is_sound(after, 4)
        room = Room(after.data)
        room.job.run()
        assert room.views() == {date(0): 3, date(31): 1}, after.where
        assert all(day.sessions for day in room.snapshot.days.values()), after.where
        room.stored.close()


def roll_up(data: Path, files: FaultyFiles) -> int:
    """Run the job over a store; return how many steps it took to open it."""
    opened = 0
    with contextlib.suppress(Crash, MallardError, OSError, sqlite3.Error):
        room = Room(data, files)
        opened = files.steps
        try:
            room.job.run()
            room.stored.store.sweep(hurry=True)
        finally:
            room.stored.close()
    return opened


def prepare(data: Path) -> dict[str, int]:
    room = Room(data)
    room.settle(0, 1, 31)
    room.job.run()
    room.stored.flush(0, A, A)
    room.compact()
    room.settle(2)
    sessions = room.snapshot.days[A, date(31)].sessions
    assert sessions is not None
    room.stored.store.swap(Change("check", removed=(sessions,)))
    room.stored.close()
    return {date(0): 3, date(1): 1, date(2): 1, date(31): 1}


@EVERY
@pytest.mark.usefixtures("few_dimensions")
@pytest.mark.parametrize("fault", faults(Fault.EIO, Fault.CRASH_AFTER))
def test_whatever_step_fails_sums_are_true_or_not_read(
    fault: Fault, every: int, tmp_path: Path
) -> None:
    before, data = tmp_path / "before", tmp_path / "data"
    truth = prepare(before)
    shutil.copytree(before, data)
    files = FaultyFiles(0, fault)
    opened = roll_up(data, files)
    assert files.steps > opened + 20
    for step in sample(files.kinds[opened:], fault, every):
        shutil.rmtree(data)
        shutil.copytree(before, data)
        faulty = FaultyFiles(opened + step, fault)
        roll_up(data, faulty)
        where = f"{fault.name} at step {step}, {faulty.step_name}"
        room = Room(data)
        # Before or after, never between: what is told is true, or nothing is.
        assert {day: views or truth[day] for day, views in room.views().items()} == truth, where
        room.job.run()
        assert room.views() == truth, where
        room.stored.store.sweep(hurry=True)
        live = {file.location for file in room.snapshot.derived}
        assert len(live) == 6, where  # visits of four days, sums of two months
        live |= {part.location for part in room.snapshot.parts}
        assert stored_files(data) == live, where
        room.stored.close()


def stored_files(data: Path) -> set[str]:
    return {
        str(path.relative_to(data))
        for folder in ("rollups", "sessions", "events")
        for path in (data / folder).glob("**/*.parquet*")
    }


def test_the_sums_of_much_are_made_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, apart=Apart())
    room.zones[A] = ZoneInfo("Asia/Kolkata")
    room.settle(0)
    monkeypatch.setattr("mallard.jobs.worker.ROWS_APART", 1)
    monkeypatch.setattr("mallard.jobs.worker.connect", None)  # of this process
    room.job.run()
    (file,) = room.snapshot.rollups.values()
    assert [each.start_us // 3_600_000_000 % 24 for each in cut_of(file, date(0))] == [0, 18]
    assert read(room, file)
    room.stored.close()
