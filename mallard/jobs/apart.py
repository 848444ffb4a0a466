"""Files that jobs write: much of it in processes of their own, which give way to the server.

Invariants: a process does one thing and ends; it ends with its server at the latest, and as long as
it has not, it holds the server's data folder, so that nobody else writes there. What kills it, be
it a lack of memory or a library's crash, leaves the server and what is stored as they are.
"""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import duckdb

from mallard.config import StoreConfig
from mallard.errors import StorageError
from mallard.files import Files
from mallard.jobs.database import connect, remove_spilled
from mallard.processes import end_with, give_way, start
from mallard.store.store import Store, Writing
from mallard.store.workshop import Workshop

# From so many events on a process is worth its start.
ROWS_APART = 10_000
_PROGRAM = "from mallard.jobs.apart import main; main()"

_Task = TypeVar("_Task")
_Made = TypeVar("_Made")
# Writes files to a store by a connection of `jobs/database.py`; a module's function. What raises
# leaves nothing.
Write = Callable[[Writing, duckdb.DuckDBPyConnection, _Task], _Made]


class Ended(StorageError):
    """The process ended before it had done its work, and may have left files behind."""


class Apart:
    """Does one thing at a time for a thread; any thread may interrupt it."""

    def __init__(self, held: Collection[int] = ()) -> None:
        """held: descriptors that the processes keep open while they live."""
        self._held = held
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[[_Task], _Made], task: _Task) -> _Made:
        """Return what a module's function makes of a task; both can be pickled.

        Raises StorageError for whatever it raised, `Ended` when it did not come to an end, and
        OSError when there can be no process.
        """
        with start(_PROGRAM, str(os.getpid()), passed=self._held) as process:
            self._process = process
            try:
                said, _ = process.communicate(pickle.dumps((function, task)))
            except BaseException:
                process.kill()
                raise
            finally:
                self._process = None
        if process.returncode or not said:
            raise Ended(f"its process ended with {process.returncode}")
        # From the process that was started here.
        made: _Made | _Failed = pickle.loads(said)  # noqa: S301
        if isinstance(made, _Failed):
            raise StorageError(str(made))
        return made

    def interrupt(self) -> None:
        """Kill the process that is at work, if there is one."""
        if process := self._process:
            process.kill()


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
        nothing is left of what was written.
        """
        whole = _Whole(write, task, self._config, self._data, secrets.token_hex(4), spill_bytes)
        if self._apart is None or rows < ROWS_APART:
            return whole.done(self._store, self._use)
        try:
            return self._apart.call(_done, whole)
        except Ended:
            self._store.tidy()
            remove_spilled(self._data, whole.spill)
            raise

    def interrupt(self) -> None:
        """End what is under way, which then did not happen; call it until `do` has ended."""
        if connection := self._connection:
            connection.interrupt()
        if self._apart:
            self._apart.interrupt()

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


class _Failed(str):
    """What went wrong in a process, in words."""

    __slots__ = ()


def main() -> None:
    """Do what the process that started this one asks, and send it what was made."""
    end_with(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):  # a whole group's: the server will say
        signal.signal(number, signal.SIG_IGN)
    give_way()
    function, task = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the server
    output = os.fdopen(os.dup(1), "wb")
    # Nothing else reaches it: DuckDB shows how far it is where it takes a program for a person.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        made = function(task)
    except Exception as error:  # noqa: BLE001 - the top of a process
        made = _Failed(str(error) or type(error).__name__)
    with output:
        pickle.dump(made, output)
    # At once: there is nothing to tidy up, and DuckDB's threads may take their time.
    os._exit(0)
