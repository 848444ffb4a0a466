"""Stores over folders that tests can fail, and what is in them."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pyarrow as pa

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.clock import Clock
from mallard.event import Frame, to_table
from mallard.files import Files
from mallard.store.local import LocalStore
from tests.factories import NOON_US, make_event
from tests.faults import FailingCommits
from tests.sql import ask


class Failing(FailingCommits):
    """And reads of the manifest after a commit, renames, or removals."""

    def commit(self, database: sqlite3.Connection) -> None:
        super().commit(database)
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


def stored(store: LocalStore) -> list[int]:
    """The positions a query over the snapshot finds."""
    sources = [store.source(part) for part in store.snapshot().parts]
    return [row[0] for row in ask("SELECT position FROM read_parquet($1) ORDER BY 1", [sources])]


def parquet(data: Path) -> list[str]:
    return [name for name in Files().names(data / "recent") if name != "empty.parquet"]
