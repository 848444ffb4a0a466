"""Files that jobs write: much of it in processes of their own, in idle time while there is any.

Beside queries without a pause and a merge every few seconds, half of the answers that took longest
waited for a merge that only gave way: it had a core, and others shared the event loop's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import duckdb

from mallard.config import StoreConfig
from mallard.files import Files
from mallard.jobs.apart import Apart, Ended, Starved
from mallard.jobs.database import connect, remove_spilled
from mallard.store.store import Store, Writing
from mallard.store.workshop import Workshop

# From so many events on a process is worth its start.
ROWS_APART = 10_000

_log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Made = TypeVar("_Made")
# Writes files to a store by a connection of `jobs/database.py`; a module's function. What raises
# leaves nothing.
Write = Callable[[Writing, duckdb.DuckDBPyConnection, _Task], _Made]


class Worker:
    """Has files written for a job: a few rows here, many apart. Any thread may interrupt it."""

    def __init__(
        self, config: StoreConfig, store: Store, data: Path, apart: Apart | None = None
    ) -> None:
        """data: where DuckDB may put what does not fit in memory. apart: None: all is done here."""
        self._config = config
        self._store = store
        self._data = data
        self._apart = apart
        self._connection: duckdb.DuckDBPyConnection | None = None

    def do(self, write: Write[_Task, _Made], task: _Task, rows: int, spill_bytes: int) -> _Made:
        """Return what is made of a task, which can be pickled, and has so many rows to read.

        spill_bytes: what may be put on the disk meanwhile, beside what is written. Raises
        StorageError, OSError, `duckdb.Error`, and RuntimeError where it was interrupted; then
        nothing that is left of what was written counts.
        """
        whole = _Whole(write, task, self._config, self._data, secrets.token_hex(4), spill_bytes)
        if self._apart is None or rows < ROWS_APART:
            return whole.done(self._store, self._use)
        try:
            return self._do_apart(self._apart, whole)
        except Starved as error:
            _log.info("once more, not in idle time: %s", error)
            return self._do_apart(self._apart, whole)

    def interrupt(self) -> None:
        """End what is under way, which then did not happen; call it until `do` has ended."""
        if connection := self._connection:
            connection.interrupt()
        if self._apart:
            self._apart.interrupt()

    def _do_apart(self, apart: Apart, whole: _Whole[_Task, _Made]) -> _Made:
        try:
            return apart.call(_done, whole, idle=True)
        except Ended:
            self._store.tidy()
            remove_spilled(self._data, whole.spill)
            raise

    def _use(self, connection: duckdb.DuckDBPyConnection | None) -> None:
        self._connection = connection


@dataclass(frozen=True, slots=True)
class _Whole(Generic[_Task, _Made]):
    """A task with all that it takes. spill: the folder for what does not fit in memory."""

    write: Write[_Task, _Made]
    task: _Task
    config: StoreConfig
    data: Path
    spill: str
    spill_bytes: int

    def done(
        self, store: Writing, use: Callable[[duckdb.DuckDBPyConnection | None], None]
    ) -> _Made:
        """Do it; use: told of the connection that works, and of its end."""
        with connect(self.config, self.data, self.spill_bytes, self.spill) as connection:
            use(connection)
            try:
                return self.write(store, connection, self.task)
            finally:
                use(None)


def _done(whole: _Whole[Any, _Made]) -> _Made:
    return whole.done(Workshop(whole.data, Files()), lambda _: None)
