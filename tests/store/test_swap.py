"""Changes of how events lie: what comes and goes, in one step, and what becomes of the files."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.clock import Clock
from mallard.errors import CorruptData, StorageError
from mallard.event import Frame, to_table
from mallard.files import Files
from mallard.store.local import SWAP_SECONDS, LocalStore
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Change, Rule, Snapshot
from tests.factories import NOON_US, make_event
from tests.sql import ask

A, B = "a.example", "b.example"
VISITS = pa.schema([("visit", pa.int16())], metadata={"mallard.sessions_version": "1"})
SUMS = pa.schema([("views", pa.int64())], metadata={"mallard.rollup_version": "1"})


class SettableClock(Clock):
    def __init__(self) -> None:
        self.us = NOON_US

    def now_us(self) -> int:
        return self.us

    def pass_by(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


class Files2(Files):
    """Real files; what is written to the store's folders fails when told."""

    full = False

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(descriptor, data, at)


class Room:
    """A store with a clock, and who was told of which snapshot."""

    def __init__(self, data: Path) -> None:
        self.clock, self.files = SettableClock(), Files2()
        self.told: list[Snapshot] = []
        self.deaf = False
        self.data = data
        self.open()

    def open(self) -> None:
        self.store = LocalStore(self.data, self.files, self.clock, self._hear)

    def _hear(self, snapshot: Snapshot) -> None:
        if self.deaf:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.told.append(snapshot)

    def flush(self, *sites: str, day: int = 0) -> Part:
        first = self.store.snapshot().watermark + 1
        events = tuple(make_event(site_id=site, timestamp=NOON_US + day * DAY_US) for site in sites)
        self.store.publish(to_table([Frame(first, first, 3, events)]), first + len(events) - 1)
        return max(self.store.snapshot().recent, key=lambda part: part.last_position)

    def compact(self, *parts: Part) -> Change:
        """Write the site-days of level-0 parts of one date; the change is for the test to make."""
        rows = pa.concat_tables(
            [pa.parquet.read_table(self.store.source(part), partitioning=None) for part in parts]
        )
        added: list[Part | Derived] = []
        for site in sorted(set(rows["site_id"].to_pylist())):
            of_site = rows.filter(pa.compute.equal(rows["site_id"], site))
            table = of_site.append_column("visit", pa.nulls(of_site.num_rows, pa.int16()))
            with self.store.day_writer(site, parts[0].date) as writer:
                writer.write(table)
                part = writer.finish_part()
            with self.store.derived_writer(
                "sessions", site, {part.date: part.digest[:16]}, VISITS
            ) as visits:
                visits.write(pa.table({"visit": [1]}, schema=VISITS))
                added += [part, visits.finish_derived()]
        return Change("compaction", added=tuple(added), removed=parts)

    def positions(self) -> list[int]:
        sources = [self.store.source(part) for part in self.store.snapshot().parts]
        found = ask("SELECT position FROM read_parquet($1, union_by_name = true)", [sources])
        return sorted(row[0] for row in found)

    def positions_of_nothing(self) -> bool:
        return not list(self.store.snapshot().parts)

    def names(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.data))
            for path in self.data.rglob("*.parquet*")
            if path.name != "empty.parquet"
        )

    def agrees_with_the_manifest(self) -> bool:
        before = self.store.snapshot()
        self.store.close()
        self.open()
        return self.store.snapshot() == before


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.store.close()


def test_a_swap_moves_events_and_what_memory_says_is_what_the_manifest_says(room: Room) -> None:
    first, second = room.flush(A, B, A), room.flush(B)
    other = room.flush(A, day=1)
    room.store.swap(room.compact(first, second))
    snapshot = room.store.snapshot()
    assert snapshot.recent == (other,)
    assert set(snapshot.days) == {(A, first.date), (B, first.date)}
    day = snapshot.days[A, first.date]
    assert day.sessions is not None
    assert day.sessions.sources == {first.date: day.version}
    assert day.parts[0].location.startswith(f"events/site_id={A}/date={first.date}/")
    assert room.positions() == [1, 2, 3, 4, 5]
    assert room.agrees_with_the_manifest()


def test_a_site_day_is_settled_until_a_late_event_or_a_rule_concerns_it(room: Room) -> None:
    first = room.flush(A, B)
    room.store.swap(room.compact(first))
    assert room.store.snapshot().is_settled(A, first.date)
    room.flush(B)
    assert room.store.snapshot().is_settled(A, first.date)
    assert not room.store.snapshot().is_settled(B, first.date)
    assert not room.store.snapshot().is_settled(A, "2024-05-02")
    rule = Rule("r1", NOON_US, 2, "{}", frozenset({(A, first.date)}))
    room.store.swap(Change("rule", rules_added=(rule,)))
    assert not room.store.snapshot().is_settled(A, first.date)
    assert room.agrees_with_the_manifest()
    room.store.swap(Change("rule", rules_removed=("r1",), receipts={"r1": '{"rows": 2}'}))
    assert room.store.snapshot().is_settled(A, first.date)
    assert room.store.receipts() == {"r1": {"rows": 2}}
    assert b"r1" in (room.data / "mallard.db-wal").read_bytes()


def test_late_events_change_the_version_of_their_day_and_retire_its_visits(room: Room) -> None:
    first = room.flush(A, B)
    room.store.swap(room.compact(first))
    before = room.store.snapshot().days
    late = room.flush(A)
    change = room.compact(late)
    late_part = next(file for file in change.added if isinstance(file, Part))
    room.store.discard(file for file in change.added if isinstance(file, Derived))
    room.store.swap(Change("late", added=(late_part,), removed=(late,)))
    after = room.store.snapshot().days
    assert len(after[A, first.date].parts) == 2
    assert after[A, first.date].version != before[A, first.date].version
    assert after[A, first.date].sessions is None
    assert after[B, first.date] == before[B, first.date]
    assert room.agrees_with_the_manifest()


def test_a_months_sums_replace_the_ones_before(room: Room) -> None:
    first = room.flush(A)
    room.store.swap(room.compact(first))
    version = room.store.snapshot().days[A, first.date].version
    files = []
    for _ in range(2):
        with room.store.derived_writer("rollup", A, {first.date: version}, SUMS) as writer:
            writer.write(pa.table({"views": [1]}, schema=SUMS))
            files.append(writer.finish_derived())
        room.store.swap(Change("rollup", added=(files[-1],)))
    assert room.store.snapshot().rollups == {(A, "2024-05"): files[1]}
    assert files[0].location in {each.file.location for each in room.store.retired()}
    assert room.agrees_with_the_manifest()


@pytest.mark.parametrize("lost", [(0, 0), (0, 2), (1, 1)])
def test_a_swap_that_would_lose_events_is_refused_and_what_it_wrote_is_removed(
    lost: tuple[int, int], room: Room
) -> None:
    first, second = room.flush(A), room.flush(A)
    change = room.compact(first)
    before, names = room.store.snapshot(), room.names()
    with pytest.raises(StorageError, match="would have changed which events are stored"):
        room.store.swap(
            Change(
                "compaction",
                added=change.added,
                removed=(first, second),
                lost_rows=lost[0],
                lost_position_sum=lost[1],
            )
        )
    assert room.store.snapshot() == before
    assert len(room.names()) == len(names) - 2
    room.store.swap(Change("expiry", removed=(second,), lost_rows=1, lost_position_sum=2))
    assert room.positions() == [1]


def test_a_part_that_is_not_live_any_more_cannot_be_swapped(room: Room) -> None:
    first = room.flush(A)
    one, other = room.compact(first), room.compact(first)
    room.store.swap(one)
    with pytest.raises(StorageError, match="not live any more"):
        room.store.swap(other)
    assert room.positions() == [1]
    assert room.agrees_with_the_manifest()


def test_files_stay_while_they_are_read_here_and_for_a_while_for_others(room: Room) -> None:
    first = room.flush(A)
    with room.store.reading() as snapshot:
        room.store.swap(room.compact(first))
        room.clock.pass_by(SWAP_SECONDS + 1)
        assert room.store.sweep() == 0
        assert Path(room.store.source(snapshot.recent[0])).exists()
    assert room.store.sweep() == 1
    assert not (room.data / first.location).exists()
    assert room.store.retired() == ()

    second = room.flush(A)
    room.store.swap(Change("expiry", removed=(second,), lost_rows=1, lost_position_sum=2))
    assert room.store.sweep() == 0
    assert room.store.sweep(hurry=True) == 1
    assert not (room.data / second.location).exists()


def test_nothing_goes_that_readers_beside_the_server_were_not_told_of(room: Room) -> None:
    first = room.flush(A)
    room.deaf = True
    room.store.swap(room.compact(first))
    room.clock.pass_by(SWAP_SECONDS + 1)
    assert room.store.sweep() == 0
    assert room.told[-1].recent == (first,)
    room.deaf = False
    assert room.store.sweep() == 1
    assert room.told[-1] == room.store.snapshot()


def test_what_is_kept_longer_is_hidden_and_can_live_again(room: Room) -> None:
    first = room.flush(A)
    room.store.swap(room.compact(first))
    (part,) = room.store.snapshot().days[A, first.date].parts
    room.store.swap(
        Change("expiry", removed=(part,), lost_rows=1, lost_position_sum=1, keep_seconds=3_600)
    )
    room.clock.pass_by(SWAP_SECONDS + 1)
    room.store.sweep()
    assert not (room.data / part.location).parent.exists()
    assert room.positions_of_nothing()
    assert room.agrees_with_the_manifest()
    kept = [each for each in room.store.retired() if each.file == part]
    room.store.revive(kept, "expiry undone")
    assert room.positions() == [1]
    assert room.agrees_with_the_manifest()

    room.store.swap(
        Change("expiry", removed=(part,), lost_rows=1, lost_position_sum=1, keep_seconds=3_600)
    )
    room.clock.pass_by(3_601)
    room.store.sweep()
    assert room.names() == []
    with pytest.raises(StorageError, match="is gone"):
        room.store.revive(kept, "expiry undone")


def test_a_full_disk_while_writing_leaves_nothing_behind(room: Room) -> None:
    first = room.flush(A)
    before = room.names()
    with pytest.raises(StorageError, match="No space left"), room.store.day_writer(A, "2024-05-01"):
        room.files.full = True
        room.compact(first)
    room.files.full = False
    assert room.names() == before


def test_a_damaged_part_is_set_aside_by_whoever_checks_it(room: Room) -> None:
    first = room.flush(A)
    path = room.data / first.location
    content = bytearray(path.read_bytes())
    room.store.check(first)
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptData):
        room.store.check(first)
    assert [part for part, _ in room.store.snapshot().quarantined] == [first]
    assert (room.data / "quarantine" / path.name).exists()


def test_lost_visits_and_sums_are_forgotten_at_the_start(room: Room) -> None:
    first = room.flush(A)
    room.store.swap(room.compact(first))
    day = room.store.snapshot().days[A, first.date]
    assert day.sessions
    room.store.close()
    (room.data / day.sessions.location).unlink()
    room.open()
    assert room.store.snapshot().days[A, first.date].sessions is None
    assert room.positions() == [1]
