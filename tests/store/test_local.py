from __future__ import annotations

import logging
import math
import stat
from pathlib import Path

import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.errors import StorageError
from mallard.event import Frame, to_table
from mallard.files import Files
from mallard.store.reader import LocalReader
from mallard.store.store import Store
from tests.factories import NOON_US, make_event
from tests.sql import ask
from tests.store.stores import Failing, open_store, parquet, rows, stored


def keep_manifest(data: Path) -> None:
    with LocalReader(data, Files()) as reader:
        reader.copy_manifest(data / "older")


def test_a_local_store_is_a_store(tmp_path: Path) -> None:
    store: Store = open_store(tmp_path)
    assert 0 <= store.node <= 0xFFF
    store.close()


def test_events_of_several_dates_are_a_file_each_whatever_their_sites(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    events = tuple(
        make_event(site_id=f"{n}.example", timestamp=NOON_US + n % 3 * DAY_US) for n in range(30)
    )
    store.publish(to_table([Frame(1, 1, 3, events)]), 30)
    assert [part.date for part in store.snapshot().parts] == [
        "2024-05-01",
        "2024-05-02",
        "2024-05-03",
    ]
    assert len(parquet(tmp_path)) == 3
    assert stored(store) == list(range(1, 31))
    assert store.snapshot().watermark == 30
    store.close()


def test_a_publish_survives_reopening(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    snapshot, node = store.snapshot(), store.node
    store.close()
    again = open_store(tmp_path)
    assert (again.snapshot(), again.node) == (snapshot, node)
    again.close()


def test_files_that_no_commit_names_are_removed_at_the_start_and_others_are_left(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    store.close()
    kept = parquet(tmp_path)
    for name in ("orphan.parquet", "2024-05-01_1-2.parquet.tmp", "notes.txt"):
        (tmp_path / "recent" / name).write_bytes(b"x")
    open_store(tmp_path).close()
    assert parquet(tmp_path) == [*kept, "notes.txt"]


def test_a_folder_of_parts_without_its_database_is_refused_and_left_as_it_is(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    store.close()
    (tmp_path / "mallard.db").unlink()
    for _ in range(2):
        with pytest.raises(StorageError, match="Restore it from a backup"):
            open_store(tmp_path)
    assert len(parquet(tmp_path)) == 1


def test_an_empty_database_beside_parts_is_a_lost_one_and_no_new_one(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    store.close()
    (tmp_path / "mallard.db").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StorageError, match="Restore it from a backup"):
            open_store(tmp_path)
    assert len(parquet(tmp_path)) == 1


def test_parts_that_an_older_database_does_not_know_are_not_removed_when_no_log_has_their_events(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    keep_manifest(tmp_path)
    store.publish(rows(3), 4)
    store.close()
    before = parquet(tmp_path)
    (tmp_path / "older").rename(tmp_path / "mallard.db")
    for begins in (math.inf, 4, 5):
        with pytest.raises(StorageError, match=f"{before[1]}.*is older than they are"):
            open_store(tmp_path, log_begins=begins)
        assert parquet(tmp_path) == before
    open_store(tmp_path, log_begins=3).close()  # as after a crash in a flush
    assert parquet(tmp_path) == before[:1]


def test_a_part_that_an_older_database_does_not_know_stays_when_what_it_was_made_of_is_gone(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    keep_manifest(tmp_path)
    source = tmp_path / "recent" / parquet(tmp_path)[0]
    merged = source.with_name(f"{source.stem}.0123abcd.parquet")
    source.rename(merged)
    store.close()
    (tmp_path / "older").rename(tmp_path / "mallard.db")
    with pytest.raises(StorageError, match=merged.name):
        open_store(tmp_path)
    merged.rename(source)
    open_store(tmp_path).close()


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_a_lost_or_short_part_is_set_aside_loudly_and_taken_back_when_it_is_restored(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    store.publish(rows(3), 4)
    store.close()
    path = tmp_path / "recent" / parquet(tmp_path)[0]
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1])

    with caplog.at_level(logging.ERROR):
        store = open_store(tmp_path)
    assert path.name in caplog.text
    assert "2 events are missing" in caplog.text
    ((part, reason),) = store.snapshot().quarantined
    assert part.location == f"recent/{path.name}"
    assert reason in {"is missing", f"has {len(content) - 1} bytes instead of {len(content)}"}
    assert stored(store) == [3, 4]
    assert store.snapshot().watermark == 4
    assert (tmp_path / "quarantine" / path.name).exists() == (harm == "short")
    store.close()

    path.write_bytes(bytes(len(content)))  # the right size is not enough
    store = open_store(tmp_path)
    assert len(store.snapshot().quarantined) == 1
    store.close()
    path.write_bytes(content)
    store = open_store(tmp_path)
    assert store.snapshot().quarantined == ()
    assert stored(store) == [1, 2, 3, 4]
    store.close()


@pytest.mark.parametrize("fail", ["before", "rename"])
def test_a_publish_that_fails_changes_nothing_and_the_next_leaves_one_copy(
    fail: str, tmp_path: Path
) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    store.publish(rows(1), 2)
    before = store.snapshot()
    files.fail = fail
    with pytest.raises(StorageError):
        store.publish(rows(3, days=2), 6)
    assert store.snapshot() == before
    files.fail = ""
    store.publish(rows(3, count=3, days=2), 8)
    assert stored(store) == list(range(1, 9))
    assert len(parquet(tmp_path)) == 3  # what the failed attempt wrote is gone
    store.close()
    again = open_store(tmp_path)
    assert stored(again) == list(range(1, 9))
    again.close()


def test_files_of_a_failed_commit_stay_until_another_one_succeeds(tmp_path: Path) -> None:
    # A commit that fails in its sync may come back with the next start, and names them.
    files = Failing()
    store = open_store(tmp_path, files)
    files.fail = "before"
    with pytest.raises(StorageError):
        store.publish(rows(1), 2)
    assert len(parquet(tmp_path)) == 1
    store.close()


def test_not_even_a_second_failure_removes_what_a_failed_commit_names(tmp_path: Path) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    for fail in ("before", "rename"):
        files.fail = fail
        with pytest.raises(StorageError):
            store.publish(rows(1, days=2), 4)
        assert len(parquet(tmp_path)) == 2
    files.fail = ""
    store.publish(rows(1, days=2), 4)
    assert stored(store) == [1, 2, 3, 4]
    store.close()


def test_what_the_disk_does_not_let_go_of_goes_with_a_later_publish(tmp_path: Path) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    files.fail = "before"
    with pytest.raises(StorageError):
        store.publish(rows(1), 2)
    files.fail = "remove"
    store.publish(rows(1, count=3), 3)
    assert len(parquet(tmp_path)) == 2
    files.fail = ""
    store.publish(rows(4), 5)
    assert len(parquet(tmp_path)) == 2
    assert stored(store) == [1, 2, 3, 4, 5]
    store.close()


def test_a_commit_that_happened_although_it_raised_counts_once(tmp_path: Path) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    files.fail = "after"
    store.publish(rows(1), 2)
    files.fail = ""
    assert store.snapshot().watermark == 2
    store.publish(rows(3), 4)
    assert stored(store) == [1, 2, 3, 4]
    store.close()


def test_after_a_commit_of_unknown_end_the_same_events_are_not_taken_twice(tmp_path: Path) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    files.fail = "after, unreadable"
    with pytest.raises(StorageError):
        store.publish(rows(1), 2)
    assert store.snapshot().watermark == 0
    files.fail = ""
    with pytest.raises(StorageError):  # still unreadable
        store.publish(rows(1, count=3), 3)
    store._manifest._database.set_authorizer(None)
    with pytest.raises(StorageError, match="had happened"):
        store.publish(rows(1, count=3), 3)
    assert store.snapshot().watermark == 2
    store.publish(rows(3), 4)
    assert stored(store) == [1, 2, 3, 4]
    store.close()


def test_a_new_folder_answers_a_glob_with_no_rows_and_every_column(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    query = f"SELECT count(*), count(revenue_amount) FROM '{tmp_path}/recent/*.parquet'"
    assert ask(query) == [(0, 0)]
    store.publish(rows(1), 2)
    assert ask(query) == [(2, 0)]
    store.close()
    open_store(tmp_path).close()
    assert ask(query) == [(2, 0)]


def test_folders_and_files_are_their_owners_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    store.close()


def test_a_reader_beside_the_store_sees_what_is_committed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with LocalReader(tmp_path, Files()) as reader:
        store.publish(rows(1), 2)
        assert reader.snapshot() == store.snapshot()
    store.close()
    with LocalReader(tmp_path, Files()) as reader:
        assert reader.snapshot().watermark == 2
    with pytest.raises(StorageError, match="not a Mallard data folder"):
        LocalReader(tmp_path / "recent", Files())
