from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mallard.buffer.wal import LogReport, read_log
from mallard.config import RetentionConfig
from mallard.errors import MallardError, StorageError
from mallard.files import Files, FolderLock
from mallard.jobs.backup import Outcome, backup, restore
from mallard.jobs.expiry import Expiry
from mallard.jobs.verify import verify
from mallard.store.reader import LocalReader
from mallard.store.snapshot import Change, Rule
from tests.factories import make_event
from tests.faults import EVERY, Crash, Fault, FaultyFiles, sample
from tests.rooms import Rooms
from tests.stored import FAULTS, A, B, Stored, positions_in


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Of level 0 and 1, with visits and sums, and two events in the log: positions 1 to 9."""
    stored = Stored(tmp_path / "data", day=10)
    stored.flush(0, A, B, A)
    stored.flush(1, A, A)
    stored.settle()
    stored.sum_up(A, 0, 1)
    stored.flush(10, A, B)
    stored.close()
    add_to_log(tmp_path / "data", 2)
    return tmp_path / "data"


def add_to_log(data: Path, count: int) -> None:
    rooms = Rooms(data)
    for _ in range(count):
        rooms.append(make_event())
    rooms.close()


def flush_log(data: Path) -> None:
    Rooms(data).close(flush=True)


def settle(data: Path) -> None:
    stored = Stored(data, day=40)
    stored.settle()
    stored.clock.pass_by(60)
    stored.store.sweep()
    stored.close()


def positions(data: Path) -> list[int]:
    """What a server on the folder would have: of parts that are there, and of the log."""
    with LocalReader(data, Files()) as store:
        snapshot = store.snapshot()
        sources = [store.source(part) for part in snapshot.parts]
    found = positions_in(source for source in sources if Path(source).exists())
    for frame in read_log(data / "wal", Files(), snapshot.watermark, LogReport()):
        found += range(frame.first_position, frame.last_position + 1)
    return sorted(found)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {"lock", "mallard.db-shm", "mallard.db-wal"}
    }


def make(data: Path, target: Path, files: Files | None = None) -> Outcome:
    return backup(data, target, files or Files())


def test_a_backup_is_a_data_folder_that_verifies_and_holds_everything(
    data: Path, tmp_path: Path
) -> None:
    outcome = make(data, tmp_path / "backup")
    assert (outcome.problems, outcome.notes) == ([], [])
    assert (outcome.part_rows, outcome.log_events) == (7, 2)
    findings = verify(tmp_path / "backup", Files(), days=None)
    assert (findings.problems, findings.notes) == ([], [])
    assert (findings.part_rows, findings.log_events) == (7, 2)
    assert positions(tmp_path / "backup") == [*range(1, 10)]
    with LocalReader(data, Files()) as one, LocalReader(tmp_path / "backup", Files()) as other:
        assert one.snapshot() == other.snapshot()
        assert one.manifest.history() == other.manifest.history()


def test_a_backup_is_for_its_owner_alone_and_the_data_is_as_it_was(
    data: Path, tmp_path: Path
) -> None:
    before = content(data)
    make(data, tmp_path / "deep" / "backup")
    assert content(data) == before
    for path in (tmp_path / "deep").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_nothing_that_must_not_lie_in_a_backup_does(data: Path, tmp_path: Path) -> None:
    for name in ("salts/2024-05-11", "tmp/x/spilled", "quarantine/a.parquet", "secret"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"salt of the day")
    stored = Stored(data, day=10)
    Expiry(RetentionConfig(sites={B: 9}), stored.store, stored.clock).run()
    stored.clock.pass_by(60)
    stored.store.sweep()
    assert (hidden := next((data / "retired").iterdir()).read_bytes())
    stored.close()
    make(data, tmp_path / "backup")
    found = content(tmp_path / "backup")
    assert {name.partition("/")[0] for name in found} == {
        *("mallard.db", "recent", "events", "sessions", "rollups", "wal", "wal-names")
    }
    assert b"salt of the day" not in b"".join(found.values())
    assert hidden not in found.values()
    with LocalReader(tmp_path / "backup", Files()) as copy:
        assert copy.manifest.retired() == ()
    backup(data, tmp_path / "other", Files(), also=["secret"])
    assert (tmp_path / "other" / "secret").read_bytes() == b"salt of the day"


def test_a_second_backup_copies_what_is_new_and_removes_what_is_gone(
    data: Path, tmp_path: Path
) -> None:
    first = make(data, tmp_path / "backup")
    assert first.copied == first.files == 8
    again = make(data, tmp_path / "backup")
    assert (again.copied, again.removed, again.files) == (0, 0, 8)
    flush_log(data)
    add_to_log(data, 1)
    grown = make(data, tmp_path / "backup")
    assert (grown.copied, grown.removed, grown.part_rows) == (1, 0, 9)
    assert positions(tmp_path / "backup") == [*range(1, 11)]
    settle(data)
    third = make(data, tmp_path / "backup")
    assert third.copied > 0
    assert third.removed > 0
    assert positions(tmp_path / "backup") == [*range(1, 11)]
    findings = verify(tmp_path / "backup", Files())
    assert (findings.problems, findings.notes) == ([], [])


def test_the_secret_of_a_backup_stays_when_the_next_one_is_made_without(
    data: Path, tmp_path: Path
) -> None:
    (data / "secret").write_bytes(b"kept")
    backup(data, tmp_path / "backup", Files(), also=["secret"])
    make(data, tmp_path / "backup")
    assert (tmp_path / "backup" / "secret").read_bytes() == b"kept"


def test_rules_under_way_are_in_it(data: Path, tmp_path: Path) -> None:
    stored = Stored(data)
    rule = Rule("r1", 1, 5, "{}", frozenset({(A, "2024-05-01")}))
    stored.store.swap(Change("rule", rules_added=(rule,)))
    stored.close()
    make(data, tmp_path / "backup")
    with LocalReader(tmp_path / "backup", Files()) as copy:
        assert copy.snapshot().rules == (rule,)


class Meanwhile(Files):
    """Real files; something happens before a part is opened, the first time or every time."""

    def __init__(self, act: Callable[[], None], times: int = 1) -> None:
        self._act = act
        self._times = times

    def chunks(self, path: Path) -> object:  # type: ignore[override]
        if self._times:
            self._times -= 1
            self._act()
        return super().chunks(path)


def test_what_is_compacted_and_removed_meanwhile_is_taken_from_a_newer_state(
    data: Path, tmp_path: Path
) -> None:
    def change() -> None:
        flush_log(data)
        settle(data)

    outcome = make(data, tmp_path / "backup", Meanwhile(change))
    assert outcome.problems == []
    assert positions(tmp_path / "backup") == [*range(1, 10)]
    findings = verify(tmp_path / "backup", Files(), days=None)
    assert (findings.problems, findings.notes) == ([], [])


def test_a_store_that_changes_without_end_is_given_up(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mallard.jobs.backup.TRIES", 3)

    def change() -> None:
        stored = Stored(data, day=40)
        stored.flush(0, A, B)
        stored.flush(1, A)
        stored.settle()
        stored.store.sweep(hurry=True)
        stored.close()

    with pytest.raises(StorageError, match="changes faster"):
        make(data, tmp_path / "backup", Meanwhile(change, times=100))


@pytest.mark.parametrize("harm", ["flipped", "missing", "unreadable"])
def test_a_damaged_part_is_told_and_the_rest_is_backed_up(
    harm: str, data: Path, tmp_path: Path
) -> None:
    part = next((data / "events").rglob("*.parquet"))
    if harm == "flipped":
        bytes_ = bytearray(part.read_bytes())
        bytes_[len(bytes_) // 2] ^= 1
        part.write_bytes(bytes(bytes_))
    elif harm == "missing":
        part.unlink()
    else:
        part.unlink()
        part.mkdir()
    (problem,) = make(data, tmp_path / "backup").problems
    assert part.name in problem
    assert "events are missing from the copy" in problem
    (problem,) = verify(tmp_path / "backup", Files(), days=0).problems
    assert part.name in problem
    assert len(positions(tmp_path / "backup")) >= 6


def test_a_good_copy_of_what_was_damaged_since_stays_and_heals_what_is_restored(
    data: Path, tmp_path: Path
) -> None:
    make(data, tmp_path / "backup")
    part = next((data / "events").rglob("*.parquet"))
    part.write_bytes(b"short")
    Stored(data).close()  # which sets it aside
    outcome = make(data, tmp_path / "backup")
    assert outcome.problems == []
    assert "this copy has it whole" in outcome.notes[0]
    restore(tmp_path / "backup", tmp_path / "restored", Files())
    Stored(tmp_path / "restored").close()
    assert positions(tmp_path / "restored") == [*range(1, 10)]


def test_what_a_damaged_log_lost_is_told(data: Path, tmp_path: Path) -> None:
    (segment,) = (data / "wal").iterdir()
    bytes_ = bytearray(segment.read_bytes())
    bytes_[60] ^= 1
    segment.write_bytes(bytes(bytes_))
    damaged, missing = make(data, tmp_path / "backup").problems
    assert "is damaged" in damaged
    assert "positions 8 to 8" in missing
    assert positions(tmp_path / "backup") == [1, 2, 3, 4, 5, 6, 7, 9]


def test_a_log_that_is_gone_from_the_store_or_from_its_backup_is_told(
    data: Path, tmp_path: Path
) -> None:
    make(data, tmp_path / "backup")
    for folder in (tmp_path / "backup", data):
        (segment,) = (folder / "wal").iterdir()
        segment.unlink()
        (problem,) = verify(folder, Files()).problems
        assert problem.startswith(f"wal/{segment.name} is missing")
    (problem,) = restore(tmp_path / "backup", tmp_path / "restored", Files()).problems
    assert "from position 8 on" in problem
    (problem,) = make(data, tmp_path / "other").problems
    assert "from position 8 on" in problem
    assert verify(tmp_path / "other", Files()).problems == []  # told once: it holds what it says


def test_what_cannot_be_a_backup_of_this_store_is_refused_and_left_as_it_is(
    data: Path, tmp_path: Path
) -> None:
    for one, other in ((data, data / "backup"), (data / "wal", data), (data, data)):
        with pytest.raises(StorageError, match="lie in one another"):
            backup(one, other, Files())
    other = tmp_path / "other"
    other.mkdir()
    (other / "letters.txt").write_bytes(b"mine")
    with pytest.raises(StorageError, match="neither empty nor a backup"):
        make(data, other)
    assert content(other) == {"letters.txt": b"mine"}
    Stored(tmp_path / "foreign").close()
    with LocalReader(data, Files()) as store:
        other_node = (store.manifest.node() + 1) % 4096
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign" / "mallard.db")) as database:
        database.execute("UPDATE manifest_node SET node = ?", (other_node,))
        database.commit()
    with pytest.raises(StorageError, match="of another store"):
        make(data, tmp_path / "foreign")
    with pytest.raises(StorageError, match="not a Mallard data folder"):
        make(tmp_path / "other", tmp_path / "backup")


@pytest.mark.parametrize("name", ["recent", "wal", "wal-names"])
def test_a_folder_that_links_to_the_stores_own_is_no_place_for_a_backup(
    name: str, data: Path, tmp_path: Path
) -> None:
    before = content(data)
    target = tmp_path / "backup"
    target.mkdir()
    (target / name).symlink_to(data / name)
    with pytest.raises(StorageError, match="is a symbolic link"):
        make(data, target)
    assert content(data) == before


def test_a_first_backup_that_ended_in_its_database_goes_on_without_what_it_left(
    data: Path, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    target.mkdir()
    for beside in ("", "-journal", "-wal", "-shm"):  # of a disk that was full
        shutil.copy(data / "mallard.db", target / f"mallard.db.tmp{beside}")
    assert make(data, target).problems == []
    assert positions(target) == [*range(1, 10)]
    assert verify(target, Files()).problems == []
    assert not list(target.glob("*.tmp*"))


def test_a_backup_with_a_later_state_than_the_store_is_not_overwritten(
    data: Path, tmp_path: Path
) -> None:
    make(data, tmp_path / "old")
    flush_log(data)
    make(data, tmp_path / "new")
    restore(tmp_path / "old", tmp_path / "restored", Files())
    with pytest.raises(StorageError, match="holds what this store does not"):
        make(tmp_path / "restored", tmp_path / "new")
    flush_log(tmp_path / "restored")  # a version of the same number, and another one
    with pytest.raises(StorageError, match="holds what this store does not"):
        make(tmp_path / "restored", tmp_path / "new")
    assert make(tmp_path / "restored", tmp_path / "old").problems == []


def test_a_folder_that_a_server_runs_or_ran_on_is_no_place_for_a_backup(
    data: Path, tmp_path: Path
) -> None:
    make(data, tmp_path / "backup")
    lock = FolderLock(tmp_path / "backup")
    with pytest.raises(StorageError, match="in use by another process of Mallard"):
        make(data, tmp_path / "backup")
    lock.release()
    (tmp_path / "backup" / "salts").mkdir()
    with pytest.raises(StorageError, match="A server ran on"):
        make(data, tmp_path / "backup")


def test_what_a_reader_left_in_the_backups_database_is_no_harm(data: Path, tmp_path: Path) -> None:
    make(data, tmp_path / "backup")
    Stored(tmp_path / "backup").close()  # opens it as a server does, and leaves SQLite's log mode
    flush_log(data)
    assert make(data, tmp_path / "backup").problems == []
    assert positions(tmp_path / "backup") == [*range(1, 10)]


def test_a_restore_gives_back_everything_and_a_server_goes_on_with_it(
    data: Path, tmp_path: Path
) -> None:
    (data / "secret").write_bytes(b"sixteen letters!")
    backup(data, tmp_path / "backup", Files(), also=["secret"])
    outcome = restore(tmp_path / "backup", tmp_path / "restored", Files(), ["secret"])
    assert (outcome.problems, outcome.notes, outcome.files) == ([], [], 8)
    assert content(tmp_path / "restored").keys() == content(tmp_path / "backup").keys()
    assert (tmp_path / "restored" / "secret").read_bytes() == b"sixteen letters!"
    assert verify(tmp_path / "restored", Files(), days=None).problems == []
    rooms = Rooms(tmp_path / "restored")
    rooms.append(make_event())
    rooms.close(flush=True)
    assert positions(tmp_path / "restored") == [*range(1, 11)]


def test_a_restore_takes_an_empty_folder_alone(data: Path, tmp_path: Path) -> None:
    make(data, tmp_path / "backup")
    (tmp_path / "restored").mkdir()
    restore(tmp_path / "backup", tmp_path / "restored", Files())
    with pytest.raises(StorageError, match="not empty"):
        restore(tmp_path / "backup", tmp_path / "restored", Files())
    (tmp_path / "restored" / "mallard.db").unlink()
    with pytest.raises(StorageError, match="did not end"):
        restore(tmp_path / "backup", tmp_path / "restored", Files())
    with pytest.raises(StorageError, match="not a Mallard data folder"):
        restore(tmp_path / "nowhere", tmp_path / "empty", Files())


def test_a_restore_tells_what_the_backup_has_damaged_and_gives_the_rest(
    data: Path, tmp_path: Path
) -> None:
    make(data, tmp_path / "backup")
    part = next((tmp_path / "backup" / "recent").glob("2024*"))
    part.write_bytes(bytes(part.stat().st_size))
    (problem,) = restore(tmp_path / "backup", tmp_path / "restored", Files()).problems
    assert part.name in problem
    assert positions(tmp_path / "restored") == [1, 2, 3, 4, 5, 8, 9]


# --- faults ---


def states(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Make an older and a newer state of the data, the newer one with less in the log."""
    older, newer = tmp_path / "older", tmp_path / "newer"
    shutil.copytree(data, older)
    shutil.copytree(data, newer)
    flush_log(newer)
    settle(newer)
    add_to_log(newer, 1)
    return older, newer


def attempt(act: Callable[..., Outcome], one: Path, other: Path, files: Files) -> Outcome:
    """Return what came of it; without problems where it ended before its time."""
    with contextlib.suppress(Crash, MallardError, OSError, sqlite3.Error):
        return act(one, other, files)
    return Outcome()


@EVERY
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_step_of_a_backup_fails_it_is_a_whole_older_or_newer_one(
    fault: Fault, every: int, data: Path, tmp_path: Path
) -> None:
    older, newer = states(data, tmp_path)
    make(older, tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    counting = FaultyFiles(0, fault)
    make(newer, tmp_path / "whole", counting)
    assert counting.steps > 60
    new = [*range(1, 11)]
    seen = set()
    for step in sample(counting.kinds, fault, every):
        target = tmp_path / f"{step}"
        shutil.copytree(tmp_path / "before", target)
        files = FaultyFiles(step, fault)
        outcome = attempt(make, newer, target, files)
        where = f"{fault.name} at step {step}, {files.step_name}"
        found = positions(target)
        if outcome.problems:  # what cannot be read is told, and the next backup has it
            assert files.step_name == "chunks", where
            assert len(verify(target, Files(), days=0).problems) == 1, where
        else:
            assert verify(target, Files(), days=0).problems == [], where
            assert found in (new[:9], new), where
        seen.add(len(found))
        assert make(newer, target).problems == [], where
        assert positions(target) == new, where
        findings = verify(target, Files(), days=0)
        assert (findings.problems, findings.notes) == ([], []), where
        shutil.rmtree(target)
    assert seen >= {9, 10}


@EVERY
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_step_of_a_restore_fails_the_folder_is_whole_or_no_server_starts_on_it(
    fault: Fault, every: int, data: Path, tmp_path: Path
) -> None:
    make(data, tmp_path / "backup")
    counting = FaultyFiles(0, fault)
    restore(tmp_path / "backup", tmp_path / "whole", counting)
    for step in sample(counting.kinds, fault, every):
        target = tmp_path / f"{step}"
        files = FaultyFiles(step, fault)
        outcome = attempt(restore, tmp_path / "backup", target, files)
        where = f"{fault.name} at step {step}, {files.step_name}"
        if outcome.problems:  # what cannot be read is told, and all else is there
            assert files.step_name == "chunks", where
            assert len(verify(target, Files(), days=0).problems) == 1, where
        elif (target / "mallard.db").exists():
            assert verify(target, Files(), days=0).problems == [], where
            assert positions(target) == [*range(1, 10)], where
        else:
            with pytest.raises(StorageError, match="not a Mallard data folder"):
                LocalReader(target, Files())
            shutil.rmtree(target, ignore_errors=True)
            assert restore(tmp_path / "backup", target, Files()).problems == [], where
        shutil.rmtree(target)
