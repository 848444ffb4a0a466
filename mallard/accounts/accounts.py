"""The room's door: answers from memory, and one thread that owns the control database.

Invariants: a directory was true at most `FRESH_SECONDS` before it is asked for, whoever changed
something, another process too; and after a change of this process's at once. Nothing of the
database is loaded before somebody asks for the first time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mallard.accounts.access import Principal
from mallard.accounts.directory import Directory
from mallard.accounts.migrations import REVISIONS, VERSION_TABLE
from mallard.clock import Clock, utc_date
from mallard.errors import MallardError, Overloaded, StorageError
from mallard.site import Goal

if TYPE_CHECKING:
    from mallard.accounts.control import Control
    from mallard.accounts.database import Database

FRESH_SECONDS = 0.5
# Beyond it we answer 503. Nearly all of the time one is enough: those who ask share an answer.
WAITING_MAX = 200

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def any_filters(filters: list[Any], goals: Sequence[Goal]) -> None:
    """Let any filters of a segment pass."""


class Accounts:
    """What is known of sites and keys, and who may change it."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        check_filters: Callable[[list[Any], Sequence[Goal]], object] = any_filters,
    ) -> None:
        """path: the database, which is there already when the first question comes.

        check_filters: raises InvalidInput for a segment's filters that mean nothing on a site
        with these goals.
        """
        self._path = path
        self._clock = clock
        self._check_filters = check_filters
        self._thread = ThreadPoolExecutor(1, "mallard-accounts")
        self._room = threading.BoundedSemaphore(WAITING_MAX)
        self._database: Database | None = None
        self._known: tuple[Directory, float] | None = None  # and when it was true
        self._looking: Future[Directory] | None = None
        self._used: set[tuple[int, date]] = set()

    def start(self) -> None:
        """Bring tables of an older version up to date. Raises StorageError for a newer one's.

        Where there is nothing to do, the database is not loaded yet.
        """
        if _stored_revision(self._path) not in (None, REVISIONS[-1]):
            self._submit(self._open).result()

    async def directory(self) -> Directory:
        """Return what is known; nearly always at once. Raises StorageError."""
        known = self._fresh()
        return known if known is not None else await _wait(self._look())

    def directory_now(self) -> Directory:
        """Return what is known, for callers that may block."""
        known = self._fresh()
        return known if known is not None else self._look().result()

    async def read(self, ask: Callable[[Control], _T]) -> _T:
        """Return what is asked in one consistent read, which runs in the accounts thread."""
        return await _wait(self._submit(lambda: self._read(ask)))

    def read_now(self, ask: Callable[[Control], _T]) -> _T:
        """Do the same for callers that may block."""
        return self._submit(lambda: self._read(ask)).result()

    async def change(self, change: Callable[[Control], _T]) -> _T:
        """Run a change in the accounts thread, in a transaction of its own, and return its result.

        When it raises, nothing changed. When it returns, `directory` has it.
        """
        return await _wait(self._submit(lambda: self._change(change)))

    def change_now(self, change: Callable[[Control], _T]) -> _T:
        """Do the same for callers that may block."""
        return self._submit(lambda: self._change(change)).result()

    def note_use(self, principal: Principal) -> None:
        """Take note, soon, that a key was used today."""
        day = utc_date(self._clock.now_us())
        if principal.key_id is None or (principal.key_id, day) in self._used:
            return
        self._used = {used for used in self._used if used[1] == day} | {(principal.key_id, day)}
        with contextlib.suppress(Overloaded):
            self._submit(lambda: self._write_use(principal.key_id or 0, day))

    def close(self) -> None:
        """Finish what was asked, and close the database."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    def _fresh(self) -> Directory | None:
        known = self._known
        if known is not None and self._clock.monotonic() - known[1] < FRESH_SECONDS:
            return known[0]
        return None

    def _look(self) -> Future[Directory]:
        """Ask the thread to look, or share the answer of one who asked and still waits."""
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = self._submit(self._refresh)
        return looking

    def _submit(self, work: Callable[[], _T]) -> Future[_T]:
        if not self._room.acquire(blocking=False):
            raise Overloaded("Too many questions to the control database wait already.")
        future = self._thread.submit(work)
        future.add_done_callback(lambda _: self._room.release())
        return future

    # --- in the accounts thread ---

    def _open(self) -> Database:
        if self._database is None:
            # Loading it takes 0.2 s and 12 MB, which a server that only collects never needs.
            from mallard.accounts.database import Database  # noqa: PLC0415

            self._database = Database(self._path)
        return self._database

    def _read(self, ask: Callable[[Control], _T]) -> _T:
        from mallard.accounts.control import Control  # noqa: PLC0415

        with self._open().reading() as connection:
            return ask(Control(connection, self._clock.now_us(), self._check_filters))

    def _change(self, change: Callable[[Control], _T]) -> _T:
        from mallard.accounts.control import Control  # noqa: PLC0415

        with self._open().changing() as connection:
            control = Control(connection, self._clock.now_us(), self._check_filters)
            result = change(control)
            control.mark_change()
            directory = control.directory()
        self._known = (directory, self._clock.monotonic())
        return result

    def _refresh(self) -> Directory:
        looked_at = self._clock.monotonic()
        known = self._known

        def look(control: Control) -> Directory:
            if known is not None and known[0].version == control.version():
                return known[0]
            return control.directory()

        directory = self._read(look)
        self._known = (directory, looked_at)
        return directory

    def _write_use(self, key_id: int, day: date) -> None:
        from mallard.accounts.control import Control  # noqa: PLC0415

        try:
            with self._open().changing() as connection:
                Control(connection, 0, self._check_filters).keys.note_use(key_id, day)
        except MallardError as error:
            # Whoever asks gets an answer all the same, and with it another try at this.
            self._used = self._used - {(key_id, day)}
            _log.warning("the use of key %d could not be noted: %s", key_id, error.detail)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()


async def _wait(future: Future[_T]) -> _T:
    # Shielded: one who gives up must not cancel what others wait for too, or half of a change.
    return await asyncio.shield(asyncio.wrap_future(future))


def _stored_revision(path: Path) -> str | None:
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as database:
            known = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (VERSION_TABLE,))
            if known.fetchone() is None:
                return None
            (revision,) = database.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
            return str(revision)
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be read ({error}).") from error
