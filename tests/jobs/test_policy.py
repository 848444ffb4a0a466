from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import StoreConfig
from mallard.jobs.policy import SORT_ROW_BYTES, Merge, Settle, plan
from mallard.store.part import Part
from mallard.store.snapshot import Day, Snapshot
from tests.factories import NOON_US

DATE = "2024-05-01"
MIDNIGHT_US = NOON_US + DAY_US // 2  # at which the date ends
MINUTE_US = 60_000_000
CONFIG = StoreConfig(merge_files=4, close_after_seconds=900, late_merge_seconds=3_600)


def part(number: int, rows: int = 10, loaded_at: int = NOON_US, site: str = "a") -> Part:
    return Part(
        location=f"recent/{number}.parquet",
        level=0,
        date=DATE,
        sites=(site,),
        rows=rows,
        size_bytes=rows,
        first_position=number,
        last_position=number,
        position_sum=number,
        first_timestamp=NOON_US,
        last_timestamp=NOON_US,
        last_loaded_at=loaded_at,
        schema_version=1,
        digest="",
    )


def compacted(site: str) -> Part:
    return replace(part(0, site=site), location=f"events/{site}.parquet", level=1)


def test_an_open_date_with_few_parts_is_left_alone() -> None:
    snapshot = Snapshot(recent=(part(1), part(2), part(3)))
    assert plan(snapshot, NOON_US, CONFIG) == []


def test_parts_of_one_size_are_merged_when_there_are_enough_and_others_are_not() -> None:
    small = tuple(part(number) for number in range(4))
    large = tuple(part(number, rows=50_000) for number in range(4, 7))
    assert plan(Snapshot(recent=small + large), NOON_US, CONFIG) == [Merge(DATE, small)]


def test_a_merge_takes_what_fits_in_memory_the_smallest_first() -> None:
    config = replace(CONFIG, memory_bytes=100_000 * SORT_ROW_BYTES)
    parts = tuple(part(number, rows=60_000 - 5_000 * number) for number in range(4))
    assert plan(Snapshot(recent=parts), NOON_US, config) == [Merge(DATE, (parts[3], parts[2]))]
    too_large = tuple(part(number, rows=90_000) for number in range(9))
    assert plan(Snapshot(recent=too_large), NOON_US, config) == []


def test_a_date_is_settled_once_it_is_over_for_long_enough() -> None:
    snapshot = Snapshot(recent=(part(1), part(2)))
    due = MIDNIGHT_US + 15 * MINUTE_US
    assert plan(snapshot, due - 1, CONFIG) == []
    assert plan(snapshot, due, CONFIG) == [Settle(DATE, snapshot.recent, ())]


def test_an_old_date_waits_for_more_after_its_first_events() -> None:
    loaded_at = MIDNIGHT_US + 3 * DAY_US
    snapshot = Snapshot(recent=(part(1, loaded_at=loaded_at),))
    assert plan(snapshot, loaded_at + 15 * MINUTE_US - 1, CONFIG) == []
    assert plan(snapshot, loaded_at + 15 * MINUTE_US, CONFIG) != []


def test_late_events_wait_longer_and_take_along_only_their_own_sites() -> None:
    days = {(site, DATE): Day((compacted(site),)) for site in ("a", "b")}
    loaded_at = MIDNIGHT_US + DAY_US
    snapshot = Snapshot(recent=(part(1, loaded_at=loaded_at, site="b"),), days=days)
    assert plan(snapshot, loaded_at + 60 * MINUTE_US - 1, CONFIG) == []
    (work,) = plan(snapshot, loaded_at + 60 * MINUTE_US, CONFIG)
    assert work == Settle(DATE, snapshot.recent, (compacted("b"),))


def test_late_events_of_a_site_without_any_that_day_wait_no_longer_than_others() -> None:
    days = {("a", DATE): Day((compacted("a"),))}
    loaded_at = MIDNIGHT_US + DAY_US
    snapshot = Snapshot(recent=(part(1, loaded_at=loaded_at, site="b"),), days=days)
    assert plan(snapshot, loaded_at + 15 * MINUTE_US, CONFIG) == [Settle(DATE, snapshot.recent, ())]


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=300))
def test_whatever_is_flushed_files_stay_few_and_rows_are_written_again_seldom(
    flushes: list[int],
) -> None:
    live: tuple[Part, ...] = ()
    written_again = 0
    for number, rows in enumerate(flushes):
        live = (*live, part(number, rows))
        while work := plan(Snapshot(recent=live), NOON_US, CONFIG):
            for merge in work:
                merged = sum(each.rows for each in merge.parts)
                written_again += merged
                left = tuple(each for each in live if each not in merge.parts)
                live = (*left, replace(merge.parts[0], rows=merged))
    # Tiers up to 1,024 rows, 4,096, 16,384, 65,536, 262,144; and what is too large to be merged.
    large = sum(flushes) // 65_536
    assert len(live) <= 5 * (CONFIG.merge_files - 1) + large
    assert sum(each.rows for each in live) == sum(flushes)
    small = 1_024 // CONFIG.merge_files  # times at most that a row is written below 1,024
    assert written_again <= sum(flushes) * (4 + small)
