from __future__ import annotations

import contextlib
import datetime
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mallard.config import RetentionConfig
from mallard.errors import MallardError
from mallard.files import Files
from mallard.jobs.expiry import REASON, Expiry, first_kept, plan, rows_by_site, spans
from mallard.store.snapshot import Change, Rule
from tests.faults import EVERY, Crash, Fault, FaultyFiles, sample
from tests.stored import FAULTS, A, B, C, Stored, date

DAY = 86_400.0
TODAY = datetime.date(2024, 5, 11)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    made = Stored(tmp_path, day=10)
    yield made
    made.close()


def expire(stored: Stored, **settings: Any) -> int:
    """Run the job; return how many events there are fewer."""
    before = sum(part.rows for part in stored.store.snapshot().parts)
    Expiry(RetentionConfig(**settings), stored.store, stored.clock).run()
    return before - sum(part.rows for part in stored.store.snapshot().parts)


def test_as_many_whole_days_before_today_are_kept_as_were_asked_for() -> None:
    config = RetentionConfig(days=1, sites={A: 0, B: 365})
    assert first_kept(config, C, TODAY) == "2024-05-10"
    assert first_kept(config, B, TODAY) == "2023-05-12"
    assert first_kept(config, A, TODAY) == ""


def test_by_default_nothing_is_ever_too_old(stored: Stored) -> None:
    stored.flush(-19_000, A)
    assert plan(stored.store.snapshot(), RetentionConfig(), TODAY).days == ()
    assert expire(stored) == 0


def test_the_plan_names_the_days_of_each_site_and_the_files_they_are_in(stored: Stored) -> None:
    for day in (0, 1):
        stored.flush(day, A, B)
        stored.settle()
    stored.sum_up(A, 0, 1)
    stored.sum_up(B, 0)
    stored.flush(0, C)
    stored.flush(1, A, C)
    snapshot = stored.store.snapshot()
    c_of_0, mixed = snapshot.recent
    found = plan(snapshot, RetentionConfig(days=9, sites={B: 0, C: 10}), TODAY)
    assert found.days == ((A, date(0)), (C, date(0)))[:1]
    assert found.whole == snapshot.days[A, date(0)].parts
    assert found.mixed == ()
    assert found.rollups == (snapshot.rollups[A, "2024-05"],)
    found = plan(snapshot, RetentionConfig(days=9, sites={A: 8}), TODAY)
    assert found.days == ((A, date(0)), (A, date(1)), (B, date(0)), (C, date(0)))
    assert set(found.whole) == {
        c_of_0,
        *(part for key in found.days[:3] for part in snapshot.days[key].parts),
    }
    assert found.mixed == (mixed,)
    assert spans(found.days) == {
        A: [date(0), date(1)],
        B: [date(0), date(0)],
        C: [date(0), date(0)],
    }


def test_days_that_are_too_old_leave_for_each_site_what_it_keeps(stored: Stored) -> None:
    for day in (0, 1, 2):
        stored.flush(day, A, B)
    stored.settle()
    stored.flush(0, B, A)
    assert expire(stored, days=9, sites={B: 8}) == 5
    assert stored.rows_of(A, 0) == stored.rows_of(B, 0) == stored.rows_of(B, 1) == []
    assert stored.rows_of(A, 1) == [3]
    assert [stored.rows_of(A, 2), stored.rows_of(B, 2)] == [[5], [6]]
    assert expire(stored, days=9, sites={B: 8}) == 0


def test_history_says_what_left_and_a_run_with_nothing_to_do_says_nothing(stored: Stored) -> None:
    stored.flush(0, A)
    stored.flush(1, A, B)
    expire(stored, days=8)
    expire(stored, days=8)
    (entry,) = [each for each in stored.store.history() if each.reason == REASON]
    assert entry.detail == {
        "rows": 3,
        "sites": {A: [date(0), date(1)], B: [date(1), date(1)]},
        "lost_rows": 3,
        "lost_position_sum": 6,
    }


def test_sums_of_a_month_that_lost_days_and_visits_of_these_days_go_with_them(
    stored: Stored,
) -> None:
    for day in (0, 1):
        stored.flush(day, A, B)
        stored.settle()
    stored.sum_up(A, 0, 1)
    stored.sum_up(B, 1)
    expire(stored, days=9)
    snapshot = stored.store.snapshot()
    assert set(snapshot.rollups) == {(B, "2024-05")}
    assert set(snapshot.days) == {(A, date(1)), (B, date(1))}
    assert all(day.sessions for day in snapshot.days.values())
    stored.clock.pass_by(2 * DAY)
    stored.store.sweep()
    left = {path.relative_to(stored.data).as_posix() for path in stored.data.rglob("*.parquet")}
    assert left == {
        "recent/empty.parquet",
        *(part.location for part in snapshot.parts),
        *(file.location for file in snapshot.derived),
    }


def test_bytes_leave_the_sight_of_readers_soon_and_the_disk_after_the_grace(
    stored: Stored,
) -> None:
    stored.flush(0, A)
    expire(stored, days=1, grace_days=2)
    stored.clock.pass_by(60)
    assert stored.store.sweep() == 0
    assert not list((stored.data / "recent").glob("2024*"))
    assert len(list((stored.data / "retired").iterdir())) == 1
    stored.clock.pass_by(2 * DAY)
    assert stored.store.sweep() == 1
    assert not list(stored.data.glob("retired/*"))


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("settled", [False, True])
def test_within_the_grace_a_higher_setting_brings_the_days_back(
    settled: bool, swept: bool, stored: Stored
) -> None:
    stored.flush(0, A, B, A)
    stored.flush(1, A, C)
    if settled:
        stored.settle()
    before = stored.positions()
    versions = {key: day.version for key, day in stored.store.snapshot().days.items()}
    expire(stored, days=9)
    assert stored.positions() == [4, 5]
    if swept:
        stored.clock.pass_by(60)
        stored.store.sweep()
    expire(stored, days=9, sites={A: 10})
    assert stored.rows_of(A, 0) == [1, 3]
    assert stored.rows_of(B, 0) == []
    expire(stored, days=0)
    assert stored.positions() == before
    snapshot = stored.store.snapshot()
    assert {key: day.version for key, day in snapshot.days.items()} == versions
    assert all(day.sessions for day in snapshot.days.values())
    gone = sum(each.detail.get("lost_rows", 0) for each in stored.store.history())
    assert gone == 0


def test_after_the_grace_nothing_comes_back(stored: Stored) -> None:
    stored.flush(0, A)
    expire(stored, days=1)
    stored.clock.pass_by(1.01 * DAY)
    stored.store.sweep()
    expire(stored)
    assert stored.positions() == []


def test_while_a_rule_that_did_not_see_them_is_under_way_days_stay_away(stored: Stored) -> None:
    # An erasure's rule names the days it is about, and looks into retired files at its end.
    stored.flush(0, A)
    stored.flush(10, A)
    expire(stored, days=9)
    stored.clock.pass_by(1)
    rule = Rule("r1", stored.clock.us, 2, "{}", frozenset({(A, date(10))}))
    stored.store.swap(Change("rule", rules_added=(rule,)))
    expire(stored)
    assert stored.positions() == [2]
    stored.store.swap(Change("rule", rules_removed=("r1",)))
    expire(stored)
    assert stored.positions() == [1, 2]


def test_what_an_erasure_let_go_of_does_not_come_back(stored: Stored) -> None:
    stored.flush(0, A)
    expire(stored, days=9)
    stored.store.expire(stored.store.retired())
    expire(stored)
    assert stored.positions() == []


def test_late_events_of_a_day_that_left_go_the_same_way(stored: Stored) -> None:
    stored.flush(0, A)
    stored.settle()
    expire(stored, days=9)
    stored.flush(0, A, A)
    stored.flush(9, A)
    assert expire(stored, days=9) == 2
    assert stored.positions() == [4]


def test_a_day_that_left_in_pieces_comes_back_whole_and_is_to_be_compacted_again(
    stored: Stored,
) -> None:
    # Visits of each piece were told apart without the others.
    for _ in range(3):
        stored.flush(0, A, A)
        stored.settle()
        expire(stored, days=9)
    stored.flush(0, A)
    stored.settle()
    expire(stored)
    assert stored.positions() == [1, 2, 3, 4, 5, 6, 7]
    snapshot = stored.store.snapshot()
    assert not snapshot.is_settled(A, date(0))
    assert len(snapshot.days[A, date(0)].parts) == 1
    stored.settle()
    assert stored.positions() == [1, 2, 3, 4, 5, 6, 7]
    assert stored.store.snapshot().is_settled(A, date(0))
    rows, visits = stored.rows_of(A, 0), stored.store.snapshot().days[A, date(0)].sessions
    assert visits is not None
    assert (len(rows), visits.rows) == (7, 3)  # a visit for each visitor


def test_rows_are_counted_by_site(stored: Stored) -> None:
    stored.flush(0, A, B, A)
    stored.flush(1, A)
    mixed, single = stored.store.snapshot().recent
    assert rows_by_site(mixed, stored.store.source(mixed)) == {A: 2, B: 1}
    assert rows_by_site(single, "not read") == {A: 1}


# --- faults ---

KEPT = [1, 3, 5, 6, 7]
ALL = [1, 2, 3, 4, 5, 6, 7]
# Events 2 and 4 are too old: one in a part with others, one in a part of its own.
SETTINGS = {"days": 0, "sites": {B: 9}}


def prepare(data: Path) -> None:
    """Make the folder all steps begin with, of which each gets a copy."""
    stored = Stored(data, day=10)
    stored.flush(0, A, B, A)
    stored.flush(0, B)
    stored.flush(0, C)
    stored.flush(1, A, B)
    stored.settle()
    stored.close()


def run_with(data: Path, files: Files) -> None:
    """Open, expire, sweep and bring back what expired, until it ends."""
    stored = Stored(data, files, day=10)
    expire(stored, **SETTINGS)
    stored.clock.pass_by(60)
    stored.store.sweep()
    expire(stored)
    stored.close()


@EVERY
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_step_fails_what_is_kept_is_there_once_and_the_next_run_ends_the_work(
    fault: Fault, every: int, tmp_path: Path
) -> None:
    prepare(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    counting = FaultyFiles(0, fault)
    run_with(tmp_path / "whole", counting)
    assert counting.steps > 40
    for step in sample(counting.kinds, fault, every):
        data = tmp_path / f"{step}"
        shutil.copytree(tmp_path / "before", data)
        files = FaultyFiles(step, fault)
        with contextlib.suppress(Crash, MallardError, OSError, sqlite3.Error):
            run_with(data, files)
        where = f"{fault.name} at step {step}, {files.step_name}"
        stored = Stored(data, day=10)
        assert stored.positions() in (KEPT, ALL), where
        expire(stored, **SETTINGS)
        assert stored.positions() == KEPT, where
        expire(stored)
        assert stored.positions() == ALL, where
        assert sum(each.detail.get("lost_rows", 0) for each in stored.store.history()) == 0, where
        stored.close()


def test_what_is_damaged_and_too_old_goes_from_quarantine_and_history_says_so(
    stored: Stored,
) -> None:
    stored.flush(0, A)
    stored.flush(1, A, B)
    for part in stored.store.snapshot().parts:
        path = Path(stored.store.source(part))
        path.write_bytes(path.read_bytes()[:-9] + bytes(9))
        with pytest.raises(MallardError):
            stored.store.check(part)
    quarantine = path.parents[1] / "quarantine"
    assert len(list(quarantine.iterdir())) == 2
    Expiry(RetentionConfig(days=1, sites={B: 0}), stored.store, stored.clock).run()
    stored.clock.us += 60_000_000
    stored.store.sweep()
    left = [part for part, _ in stored.store.snapshot().quarantined]
    assert [part.sites for part in left] == [(A, B)]  # B is kept for ever
    assert [file.name for file in quarantine.iterdir()] == [Path(left[0].location).name]
    assert stored.store.history()[-1].detail["damaged"] == 1
