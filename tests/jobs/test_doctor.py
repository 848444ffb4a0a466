from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mallard.clock import Clock
from mallard.config import BufferConfig, Config, GeoConfig, RetentionConfig
from mallard.files import Files, FolderLock
from mallard.jobs.doctor import Severity, examine
from mallard.store.reader import LocalReader
from mallard.store.snapshot import Change, Rule
from tests.factories import make_event
from tests.rooms import Rooms
from tests.stored import A, B, SettableClock, Stored, date

ROOM = Config(buffer=BufferConfig(free_bytes_min=0))
DAY = 86_400.0


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    """A day that is over and compacted, with sums; the day after it is not over."""
    made = Stored(tmp_path / "data", day=1)
    made.flush(0, A, B)
    made.settle()
    made.sum_up(A, 0)
    made.sum_up(B, 0)
    made.flush(1, A)
    made.clock.pass_by(60)
    made.store.sweep()
    yield made
    made.close()


def said(stored: Stored, severity: Severity, config: Config = ROOM, after: float = 0) -> list[str]:
    clock = SettableClock(stored.clock.us + int(after * 1e6))
    remarks = examine(stored.data, config, Files(), clock, "salts")
    return [remark.text for remark in remarks if remark.severity is severity]


def wrong(stored: Stored, config: Config = ROOM, after: float = 0) -> list[str]:
    return said(stored, Severity.WRONG, config, after)


def notes(stored: Stored, config: Config = ROOM, after: float = 0) -> list[str]:
    return said(stored, Severity.NOTE, config, after)


def test_of_a_sound_folder_it_says_what_it_holds_and_nothing_else(stored: Stored) -> None:
    first, room = said(stored, Severity.OK)
    assert first == f"{stored.data} holds 3 events in 3 parts; no server runs on it."
    assert room.endswith(" bytes are free on the disk.")
    stored.close()  # a running server's database has a log of its own, which is noted else
    assert (wrong(stored), notes(stored)) == ([], [])


def test_what_is_no_data_folder_or_of_a_newer_format_is_wrong(
    tmp_path: Path, stored: Stored
) -> None:
    (remark,) = examine(tmp_path, ROOM, Files(), Clock(), "salts")
    assert remark.severity is Severity.WRONG
    assert "not a Mallard data folder" in remark.text
    stored.store._manifest._database.execute("UPDATE manifest_format SET version = 999")
    (text,) = wrong(stored)
    assert "written by a newer Mallard (format 999" in text


def test_a_part_that_is_missing_or_short_is_wrong_before_a_server_starts(stored: Stored) -> None:
    parts = [*stored.store.snapshot().parts]
    (stored.data / parts[0].location).unlink()
    (stored.data / parts[1].location).write_bytes(b"x")
    (sums, *_) = stored.store.snapshot().rollups.values()
    (stored.data / sums.location).unlink()
    (text,) = wrong(stored)
    assert f"{parts[0].location} is missing, {parts[1].location} has 1 bytes instead" in text
    assert "2 events" in text
    assert f"{sums.location} is missing. The next start has it made anew." in notes(stored)


def test_files_that_the_manifest_is_too_old_for_are_wrong(stored: Stored) -> None:
    old = stored.data / "old.db"
    with LocalReader(stored.data, Files()) as reader:
        reader.copy_manifest(old)
    stored.flush(1, B)
    newer = stored.store.snapshot().recent[-1]
    stored.close()
    old.rename(stored.data / "mallard.db")
    (text,) = wrong(stored)
    assert text.startswith(f"{newer.location} hold events that are nowhere else")
    assert not any(newer.location in note for note in notes(stored))


def test_who_holds_the_folder_is_said_and_looking_does_not_take_it(stored: Stored) -> None:
    lock = FolderLock(stored.data)
    for _ in range(2):
        assert f"process {os.getpid()} serves it." in said(stored, Severity.OK)[0]
    lock.release()
    said(stored, Severity.OK)
    FolderLock(stored.data).release()


def test_too_little_room_is_wrong_and_little_of_it_a_note(stored: Stored) -> None:
    free = Files().free_bytes(stored.data)
    (text,) = wrong(stored, Config(buffer=BufferConfig(free_bytes_min=2 * free)))
    assert "answered 503. Make room." in text
    stored.close()
    (text,) = notes(stored, Config(buffer=BufferConfig(free_bytes_min=free // 2)))
    assert "soon it is full" in text


def test_what_others_may_read_is_wrong(stored: Stored) -> None:
    (stored.data / "recent").chmod(0o750)
    (stored.data / "mallard.db").chmod(0o604)
    (text,) = wrong(stored)
    assert text == (
        f"mallard.db, recent can be read by others than their owner: chmod -R go-rwx {stored.data}"
    )


def test_a_part_in_quarantine_is_wrong_and_a_file_nobody_needs_there_a_note(
    stored: Stored,
) -> None:
    stored.close()
    part = next((stored.data / "events").rglob("*.parquet"))
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    Stored(stored.data).close()
    (text,) = wrong(stored)
    assert text.startswith(f"{part.relative_to(stored.data)} has ")
    part.parent.mkdir(mode=0o700, exist_ok=True)
    part.write_bytes(content)
    part.chmod(0o600)
    Stored(stored.data).close()
    assert wrong(stored) == []
    assert any(part.name in text and "which nothing needs" in text for text in notes(stored))


def test_files_that_no_commit_names_are_noted_unless_a_server_is_at_work(stored: Stored) -> None:
    stored.close()
    left = stored.data / "events" / "left.parquet"
    left.touch(mode=0o600)
    (text,) = notes(stored)
    assert text.startswith("events/left.parquet are not in the manifest")
    lock = FolderLock(stored.data)
    assert notes(stored) == []
    lock.release()


def test_a_date_that_is_over_for_long_and_not_compacted_is_wrong_when_a_server_runs(
    stored: Stored,
) -> None:
    stored.close()
    assert not any("compacted" in text for text in notes(stored, after=0.5 * DAY))
    (text,) = [text for text in notes(stored, after=DAY) if "compacted" in text]
    assert text == f"{date(1)} are not compacted; a running server sees to it"
    lock = FolderLock(stored.data)
    (text,) = wrong(stored, after=DAY)
    assert text.startswith(f"{date(1)} are not compacted: see compaction")
    lock.release()


def test_visits_and_sums_that_are_to_be_made_are_noted(stored: Stored) -> None:
    visits = stored.store.snapshot().days[A, date(0)].sessions
    assert visits is not None
    stored.store.swap(Change("check", removed=(visits,)))
    assert any(f"sums of {A} 2024-05 are to be made" in text for text in notes(stored))


def test_a_rule_that_stays_for_days_is_wrong_when_a_server_runs(stored: Stored) -> None:
    rule = Rule("r1", stored.clock.us, 5, "{}", frozenset({(A, date(0))}))
    stored.store.swap(Change("rule", rules_added=(rule,)))
    lock = FolderLock(stored.data)
    assert wrong(stored, after=0.5 * DAY) == []
    assert any("The rule r1 is applied" in text for text in wrong(stored, after=2 * DAY))
    lock.release()


def test_a_log_that_waits_for_hours_is_wrong_when_a_server_runs(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path / "data")
    rooms.append(make_event())
    rooms.close()
    (tmp_path / "data").chmod(0o700)
    now = SettableClock(Clock().now_us() + int(2 * 3_600 * 1e6))
    remarks = examine(tmp_path / "data", ROOM, Files(), now, "salts")
    (text,) = [each.text for each in remarks if each.severity is Severity.NOTE]
    assert "events that are in no part yet" in text and "a running server sees to it" in text
    lock = FolderLock(tmp_path / "data")
    remarks = examine(tmp_path / "data", ROOM, Files(), now, "salts")
    (text,) = [each.text for each in remarks if each.severity is Severity.WRONG]
    assert text.endswith("see flush in the server's log, and its /health/ready.")
    lock.release()


def test_segments_whose_events_are_in_parts_are_noted(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path / "data", segment_bytes=1)
    for _ in range(2):
        rooms.append(make_event())
    segment = min((tmp_path / "data" / "wal").iterdir())
    content = segment.read_bytes()
    rooms.flusher.flush()
    rooms.append(make_event())
    rooms.close()
    segment.write_bytes(content)
    remarks = examine(tmp_path / "data", ROOM, Files(), Clock(), "salts")
    assert any(f"wal/ holds {segment.name}, whose events are in parts" in r.text for r in remarks)


def test_what_is_wrong_with_the_log_is_wrong(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rooms = Rooms(data, segment_bytes=1)
    for _ in range(3):
        rooms.append(make_event())
    rooms.close()
    data.chmod(0o700)
    first, second, last = sorted((data / "wal").iterdir())
    first.rename(data / "first")
    second.write_bytes(second.read_bytes()[:-1])
    last.unlink()
    remarks = examine(data, ROOM, Files(), Clock(), "salts")
    one, other, gone = [each.text for each in remarks if each.severity is Severity.WRONG]
    assert one.startswith("1 events, positions 1 to 1, are in no log segment")
    assert other.startswith("1 events, positions 2 to 2, are in no log segment")
    assert gone.startswith(f"wal/{last.name} is missing, and it held acknowledged events")
    assert any("a write that never finished" in each.text for each in remarks)


def test_salts_of_days_that_are_over_are_wrong(stored: Stored) -> None:
    folder = stored.data / "salts"
    folder.mkdir(mode=0o700)
    for day in (-1, 0, 1, 2):
        (folder / date(day)).touch(mode=0o600)
    (text,) = wrong(stored)
    assert text.startswith(f"salts/ holds {date(-1)}: ")


def test_a_clock_behind_the_newest_event_is_wrong(stored: Stored) -> None:
    (text,) = wrong(stored, after=-0.5 * DAY)
    assert text.endswith("which is to come by this machine's clock. Set the clock.")


def test_a_database_of_places_that_is_not_there_is_wrong(stored: Stored, tmp_path: Path) -> None:
    config = Config(buffer=ROOM.buffer, geo=GeoConfig(database=tmp_path / "none.mmdb"))
    (text,) = wrong(stored, config)
    assert f"geo.database names {tmp_path}/none.mmdb, which is no file" in text


def test_days_that_are_about_to_expire_are_noted(stored: Stored) -> None:
    config = Config(buffer=ROOM.buffer, retention=RetentionConfig(days=1, sites={A: 0}))
    assert any("1 site-days are older than" in text for text in notes(stored, config, after=DAY))
