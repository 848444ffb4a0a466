from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mallard.errors import StorageError
from mallard.store.local import LocalStore
from mallard.store.part import Part
from mallard.store.snapshot import Change
from tests.store.stores import Failing, open_store, parquet, rows, stored


def without(part: Part) -> Change:
    """Return a change that takes out a part of the positions 1 and 2."""
    return Change("check", removed=(part,), lost_rows=2, lost_position_sum=3)


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


def after_a_failed_flush(folder: Path) -> tuple[LocalStore, Failing, Part]:
    """Return a store with a part of positions 1 and 2, which failed to commit 3 and 4."""
    files = Failing()
    store = open_store(folder, files)
    store.publish(rows(1), 2)
    (live,) = store.snapshot().parts
    files.fail = "before"
    with pytest.raises(StorageError):
        store.publish(rows(3), 4)
    files.fail = ""
    return store, files, live


def test_what_a_failed_flush_left_is_not_removed_by_another_commit_while_it_is_written_again(
    tmp_path: Path,
) -> None:
    store, _, live = after_a_failed_flush(tmp_path)

    def write() -> tuple[Part, ...]:
        written = store.write_recent(rows(3))
        store.swap(without(live))
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
    store, files, live = after_a_failed_flush(tmp_path)
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
            swapped.append(other.submit(store.swap, without(live)))
            assert entered.wait(60)
            lock.tell = asked.set
            return store.write_recent(rows(3))

        store.publish_written(3, 4, write)
        swapped[0].result()
    assert stored(store) == [3, 4]
    store.close()


def lose_in_doubt(store: LocalStore, files: Failing, live: Part) -> None:
    """Have a commit without a part of two events happen, and raise, and not be seen afterwards."""
    files.fail = "after, unreadable"
    with pytest.raises(StorageError):
        store.swap(without(live))


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
        lose_in_doubt(store, files, live)
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
        lose_in_doubt(store, files, live)
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
