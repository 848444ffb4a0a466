"""The control database: one connection to it, used by one thread, its tables brought up to date.

It is the SQLite file that the store keeps its manifest in; the two know nothing of each other's
tables. Loading SQLAlchemy takes 0.2 s and 12 MB, so nobody imports this module before it is needed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, insert, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from mallard.accounts.migrations import REVISIONS, VERSION_TABLE
from mallard.accounts.tables import CHANGE, METADATA
from mallard.errors import Overloaded, StorageError

# How long a change waits for another process's. The store's commits take milliseconds.
BUSY_SECONDS = 5.0


class Database:
    """The tables of accounts; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open a database that is there already, and bring its tables up to date.

        Raises StorageError when a newer Mallard wrote them, or it cannot be opened.
        """
        self._path = path
        engine = create_engine("sqlite://", creator=self._connect, poolclass=StaticPool)
        event.listen(engine, "begin", _begin)
        self._reader = engine
        self._writer = engine.execution_options(changes=True)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent read. Raises StorageError."""
        with self._failing("read"), self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def changing(self) -> Iterator[Connection]:
        """One transaction that happens whole or not at all.

        Raises StorageError, and Overloaded while another process changes something for long.
        """
        with self._failing("written"), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the connection."""
        self._reader.dispose()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,  # transactions begin and end where we say
            check_same_thread=False,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # nothing is left of what was removed
        return connection

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            cause = getattr(error, "orig", None) or error
            if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise Overloaded("Another process is changing the database.") from error
            raise StorageError(f"{self._path} cannot be {what} ({cause}).") from error

    def _prepare(self) -> None:
        with self.reading() as connection:
            if _revision(connection) == REVISIONS[-1]:
                return
        with self.changing() as connection:
            found = _revision(connection)  # again: another process may have been faster
            if found is None:
                _create(connection)
            elif found in REVISIONS[:-1]:
                # Loading it takes 10 MB, so only where there is something to migrate.
                from mallard.accounts.migrations.upgrade import upgrade  # noqa: PLC0415

                upgrade(connection)
            elif found != REVISIONS[-1]:
                raise newer(self._path, found)


def newer(path: Path, found: str) -> StorageError:
    """Return the error about tables of a revision that this version does not know."""
    return StorageError(
        f"{path} was written by a newer Mallard (accounts {found}, this one reads up to "
        f"{REVISIONS[-1]}). Start that version again, or upgrade this one."
    )


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes then would fail, not wait, where another was faster.
    changes = connection.get_execution_options().get("changes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if changes else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    return str(found.scalar_one())


def _create(connection: Connection) -> None:
    """Make the newest tables at once, which is what all migrations in a row make."""
    METADATA.create_all(connection)
    connection.execute(insert(CHANGE).values(version=0))
    connection.exec_driver_sql(
        f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
        f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(
        text(f"INSERT INTO {VERSION_TABLE} VALUES (:revision)"),  # noqa: S608
        {"revision": REVISIONS[-1]},
    )
