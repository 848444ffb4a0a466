"""Disk operations of compaction in turn fails, tears or is the last one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mallard.config import StoreConfig
from mallard.files import Files
from mallard.jobs.compaction import Compactor
from mallard.jobs.verify import verify
from mallard.telemetry import Telemetry
from tests.every_step import assert_is_sound, at_every_step
from tests.faults import EVERY, Fault
from tests.stored import A, B, Stored, date

# The other faults do nothing here that these do not: an error with half a write or after the step,
# the process's end before it (and so after the one before), the machine's.
FAULTS = pytest.mark.parametrize(
    "fault",
    [Fault.TEAR, Fault.FAIL_AFTER, Fault.CRASH_BEFORE, Fault.POWER_LOSS],
    ids=lambda fault: fault.name,
)
LATER = 3  # days
CONFIG = StoreConfig(merge_files=2, close_after_seconds=0.0, late_merge_seconds=0.0)


def compact(stored: Stored) -> None:
    store, data, clock = stored.store, stored.data, stored.clock
    Compactor(CONFIG, store, data, lambda: 2**40, clock, Telemetry()).run()


def is_settled(stored: Stored, *days: int) -> bool:
    snapshot = stored.store.snapshot()
    return not snapshot.recent and all(
        len(snapshot.days[site, date(day)].parts) == 1 and snapshot.days[site, date(day)].sessions
        for site in (A, B)
        for day in days
    )


def flush_some(stored: Stored) -> None:
    stored.flush(0, A, B, A)
    stored.flush(0, B)
    stored.flush(0, A, A)


@EVERY
@FAULTS
def test_a_merge_happens_once_or_not_at_all(fault: Fault, every: int, tmp_path: Path) -> None:
    for after in at_every_step(tmp_path, fault, flush_some, compact, day=0, every=every):
        assert_is_sound(after, 6)
        stored = Stored(after.data)
        compact(stored)
        assert [part.rows for part in stored.store.snapshot().recent] == [6], after.where
        stored.close()
        assert verify(after.data, Files()).notes == [], after.where


@EVERY
@FAULTS
def test_sites_are_settled_with_what_was_settled_already_once_or_not_at_all(
    fault: Fault, every: int, tmp_path: Path
) -> None:
    def build(stored: Stored) -> None:
        stored.flush(0, A, A, A)
        compact(stored)
        stored.flush(0, B, A)

    for after in at_every_step(tmp_path, fault, build, compact, day=LATER, every=every):
        assert_is_sound(after, 5)
        stored = Stored(after.data, day=LATER)
        compact(stored)
        assert is_settled(stored, 0), after.where
        stored.close()
        assert verify(after.data, Files()).notes == [], after.where


@EVERY
@FAULTS
def test_what_compaction_took_out_is_swept_away_and_nothing_else(
    fault: Fault, every: int, tmp_path: Path
) -> None:
    def build(stored: Stored) -> None:
        flush_some(stored)
        compact(stored)

    def sweep(stored: Stored) -> None:
        stored.clock.pass_by(60)
        stored.store.sweep()

    for after in at_every_step(tmp_path, fault, build, sweep, day=LATER, every=every):
        assert_is_sound(after, 6)
        stored = Stored(after.data, day=LATER + 1)
        stored.store.sweep()
        assert stored.store.retired() == (), after.where
        stored.close()
        kept = [path.name for path in after.data.glob("recent/*.parquet")]
        assert kept == ["empty.parquet"], after.where
        assert verify(after.data, Files()).notes == [], after.where
