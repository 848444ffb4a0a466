from __future__ import annotations

import errno
import logging
import math
import sqlite3
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.clock import Clock
from mallard.errors import StorageError
from mallard.event import Frame, to_table
from mallard.files import Files
from mallard.store.local import LocalStore
from mallard.store.part import Part
from mallard.store.reader import LocalReader
from mallard.store.snapshot import Change
from mallard.store.store import Store
from tests.factories import NOON_US, make_event
from tests.sql import ask


class Failing(Files):
    """Commits that raise before or after they happen, reads of the manifest that fail, renames."""

    def __init__(self) -> None:
        self.fail = ""

    def commit(self, database: sqlite3.Connection) -> None:
        if self.fail == "before":
            raise OSError(errno.EIO, "Input/output error")
        super().commit(database)
        if self.fail in {"after", "after, unreadable"}:
            if self.fail == "after, unreadable":
                database.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
            raise OSError(errno.EIO, "Input/output error")

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if self.fail == "rename" and "2024-05-02" in target.name:
            raise OSError(errno.EIO, "Input/output error")

    def remove(self, path: Path) -> None:
        if self.fail == "remove":
            raise OSError(errno.EIO, "Input/output error")
        super().remove(path)


def rows(first: int, count: int = 2, days: int = 1) -> pa.Table:
    events = tuple(make_event(timestamp=NOON_US + day * DAY_US) for day in range(days)) * count
    return to_table([Frame(first, first, 3, events)])


def open_store(data: Path, files: Files | None = None, log_begins: float = 0) -> LocalStore:
    data.mkdir(exist_ok=True)
    return LocalStore(data, files or Files(), Clock(), log_begins=log_begins)


def keep_manifest(data: Path) -> None:
    with LocalReader(data, Files()) as reader:
        reader.copy_manifest(data / "older")


def stored(store: LocalStore) -> list[int]:
    """The positions a query over the snapshot finds."""
    sources = [store.source(part) for part in store.snapshot().parts]
    return [row[0] for row in ask("SELECT position FROM read_parquet($1) ORDER BY 1", [sources])]


def parquet(data: Path) -> list[str]:
    return [name for name in Files().names(data / "recent") if name != "empty.parquet"]


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


def test_events_that_somebody_else_writes_are_published_with_the_watermark(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    store.publish_written(1, 7, lambda: store.write_recent(rows(1)))
    assert stored(store) == [1, 2]
    assert store.snapshot().watermark == 7

    def never() -> list[Part]:
        raise AssertionError("what is stored is not written again")

    with pytest.raises(StorageError, match="had happened"):
        store.publish_written(7, 9, never)
    assert store.snapshot().watermark == 7
    store.close()


def test_a_store_serves_others_while_events_are_written_and_tidies_up_afterwards(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    store.publish(rows(1), 2)
    with ThreadPoolExecutor(2) as others:
        tidied: list[Future[bool]] = []

        def write() -> tuple[Part, ...]:
            written = store.write_recent(rows(3))
            tidied.append(others.submit(store.tidy))
            assert others.submit(read).result(timeout=60) == [1, 2]
            assert not tidied[0].done()
            return written

        def read() -> list[int]:
            with store.reading():
                return stored(store)

        store.publish_written(3, 4, write)
        assert tidied[0].result(timeout=60)
    assert stored(store) == [1, 2, 3, 4]
    store.close()


def test_what_a_failed_flush_left_is_not_removed_by_another_commit_while_it_is_written_again(
    tmp_path: Path,
) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    store.publish(rows(1), 2)
    (live,) = store.snapshot().parts
    files.fail = "before"
    with pytest.raises(StorageError):
        store.publish(rows(3), 4)
    files.fail = ""

    def write() -> tuple[Part, ...]:
        written = store.write_recent(rows(3))
        store.swap(Change("check", removed=(live,), lost_rows=2, lost_position_sum=3))
        return written

    store.publish_written(3, 4, write)
    assert stored(store) == [3, 4]
    store.close()
    assert stored(open_store(tmp_path)) == [3, 4]


class _Asked:
    """A store's lock that tells when the publishing thread asks for it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.tell: Callable[[], None] | None = None

    def __enter__(self) -> None:
        if self.tell and threading.current_thread() is threading.main_thread():
            self.tell()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_commit_that_ends_while_a_flush_waits_for_it_leaves_what_the_flush_wrote_again(
    tmp_path: Path,
) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    store.publish(rows(1), 2)
    (live,) = store.snapshot().parts
    files.fail = "before"
    with pytest.raises(StorageError):
        store.publish(rows(3), 4)
    files.fail = ""
    entered, asked = threading.Event(), threading.Event()
    commit, lock = files.commit, _Asked(store._lock)
    store._lock = lock  # type: ignore[assignment]

    def commit_late(database: sqlite3.Connection) -> None:
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            assert asked.wait(60)
        commit(database)

    files.commit = commit_late  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as other:
        swapped: list[Future[None]] = []

        def write() -> tuple[Part, ...]:
            change = Change("check", removed=(live,), lost_rows=2, lost_position_sum=3)
            swapped.append(other.submit(store.swap, change))
            assert entered.wait(60)
            lock.tell = asked.set
            return store.write_recent(rows(3))

        store.publish_written(3, 4, write)
        swapped[0].result()
    assert stored(store) == [3, 4]
    store.close()


@pytest.mark.parametrize("fail", ["", "before", "after"])
def test_a_commit_of_unknown_end_beside_a_flush_is_looked_at_before_the_flush_commits(
    fail: str, tmp_path: Path
) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    store.publish(rows(1), 2)
    (live,) = store.snapshot().parts

    def write() -> tuple[Part, ...]:
        written = store.write_recent(rows(3))
        files.fail = "after, unreadable"
        with pytest.raises(StorageError):
            store.swap(Change("check", removed=(live,), lost_rows=2, lost_position_sum=3))
        files.fail = fail
        store._manifest._database.set_authorizer(None)
        return written

    if fail == "before":
        with pytest.raises(StorageError):
            store.publish_written(3, 4, write)
        assert store.snapshot().watermark == 2
        files.fail = ""
        store.publish(rows(3), 4)
    else:
        store.publish_written(3, 4, write)
    assert store.snapshot() == store._manifest.snapshot()
    assert (stored(store), store.snapshot().watermark) == ([3, 4], 4)
    store.close()


def test_a_flush_beside_a_commit_whose_end_cannot_be_seen_fails_and_leaves_no_file(
    tmp_path: Path,
) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    store.publish(rows(1), 2)
    (live,) = store.snapshot().parts

    def write() -> tuple[Part, ...]:
        written = store.write_recent(rows(3))
        files.fail = "after, unreadable"
        with pytest.raises(StorageError):
            store.swap(Change("check", removed=(live,), lost_rows=2, lost_position_sum=3))
        files.fail = ""
        return written

    with pytest.raises(StorageError):
        store.publish_written(3, 4, write)
    assert parquet(tmp_path) == [Path(live.location).name]
    store._manifest._database.set_authorizer(None)
    store.publish(rows(3), 4)
    assert stored(store) == [3, 4]
    store.close()


@pytest.mark.parametrize("then", ["before", "after", ""])
def test_a_part_set_aside_by_a_commit_that_seemed_to_fail_costs_no_later_flush(
    then: str, tmp_path: Path
) -> None:
    files = Failing()
    store = open_store(tmp_path, files)
    store.publish(rows(1), 2)
    (live,) = store.snapshot().parts
    (tmp_path / live.location).write_bytes(b"not what was written")
    files.fail = "after"
    with pytest.raises(StorageError):
        store.check(live)
    files.fail = then
    if then == "before":
        with pytest.raises(StorageError):
            store.publish(rows(3), 4)
        assert store.snapshot().watermark == 2
        files.fail = ""
    store.publish(rows(3), 4)
    assert (stored(store), store.snapshot().watermark) == ([3, 4], 4)
    assert [part for part, _ in store.snapshot().quarantined] == [live]
    store.close()
