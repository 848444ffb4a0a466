"""Which parts are live and up to which position they go: the only truth about the store.

It lies in SQLite, in `mallard.db`, in tables of its own. A version is one commit: parts in, parts
out and the watermark, together or not at all. Nothing is live but what the newest version says.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mallard.errors import StorageError
from mallard.files import Files
from mallard.store.part import Part

FORMAT = 1
BUSY_SECONDS = 30.0

_TABLES = """
CREATE TABLE manifest_format (version INTEGER NOT NULL);
CREATE TABLE manifest_node (node INTEGER NOT NULL);
CREATE TABLE manifest_version (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    committed_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    watermark INTEGER NOT NULL
);
CREATE TABLE manifest_part (
    location TEXT PRIMARY KEY,
    level INTEGER NOT NULL,
    date TEXT NOT NULL,
    site_id TEXT,
    rows INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    position_sum TEXT NOT NULL,
    first_timestamp INTEGER NOT NULL,
    last_timestamp INTEGER NOT NULL,
    last_loaded_at INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    added_in INTEGER NOT NULL REFERENCES manifest_version (version),
    quarantined_because TEXT
);
"""
_COLUMNS = ", ".join(field.name for field in fields(Part))
_INSERT = (
    f"INSERT INTO manifest_part ({_COLUMNS}, added_in) "
    f"VALUES ({', '.join('?' * (len(fields(Part)) + 1))})"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store at one instant; it never changes.

    version: of the manifest. watermark: the last position that is in parts. parts: the live ones.
    quarantined: (part, reason) of those that cannot be read, whose events are missing from answers.
    """

    version: int
    watermark: int
    parts: tuple[Part, ...]
    quarantined: tuple[tuple[Part, str], ...]

    @property
    def last_loaded_at(self) -> int:
        """The latest commit time of any event in parts, in microseconds; 0 without parts."""
        known = (*self.parts, *(part for part, _ in self.quarantined))
        return max((part.last_loaded_at for part in known), default=0)


class Manifest:
    """The manifest's tables; used by one thread at a time."""

    def __init__(self, path: Path, files: Files, *, read_only: bool = False) -> None:
        """Open the database at path, making its tables where there are none.

        read_only: for a reader beside the server; changes nothing, and path must exist.
        Raises StorageError when a newer Mallard wrote it, or it cannot be opened.
        """
        self._files = files
        self._path = path
        try:
            self._database = self._open("ro" if read_only else "rwc")
            try:
                if not read_only:
                    path.chmod(0o600)
                    self._database.execute("PRAGMA journal_mode = WAL")
                    self._database.execute("PRAGMA synchronous = FULL")
                    self._make_tables()
                self._check_format()
            except BaseException:
                self._database.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"{path} cannot be opened as Mallard's database ({error}). Restore it from a "
                "backup, or see whether the disk is full or read-only."
            ) from error

    def snapshot(self) -> Snapshot:
        """Return what is live now, in one consistent read; raises StorageError."""
        try:
            self._database.execute("BEGIN")
            try:
                version, watermark = self._database.execute(
                    "SELECT version, watermark FROM manifest_version ORDER BY version DESC LIMIT 1"
                ).fetchone() or (0, 0)
                rows = self._database.execute(
                    f"SELECT {_COLUMNS}, quarantined_because FROM manifest_part ORDER BY location"
                ).fetchall()
            finally:
                self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(f"{self._path} cannot be read ({error}).") from error
        parts = [(_part(row[:-1]), row[-1]) for row in rows]
        return Snapshot(
            version,
            watermark,
            tuple(part for part, reason in parts if reason is None),
            tuple((part, reason) for part, reason in parts if reason is not None),
        )

    def node(self) -> int:
        """Return this folder's 12 bits, by which its event ids differ from those of others."""
        return int(self._database.execute("SELECT node FROM manifest_node").fetchone()[0])

    def commit(
        self,
        at_us: int,
        reason: str,
        watermark: int,
        added: Iterable[Part] = (),
        removed: Iterable[Part] = (),
        quarantined: Iterable[tuple[Part, str | None]] = (),
    ) -> None:
        """Make a new version; when it raises StorageError, nothing changed.

        quarantined: parts with the reason they are set aside for, or None to take one back.
        """
        try:
            self._files.begin(self._database)
            cursor = self._database.execute(
                "INSERT INTO manifest_version (committed_at, reason, watermark) VALUES (?, ?, ?)",
                (at_us, reason, watermark),
            )
            self._database.executemany(
                "DELETE FROM manifest_part WHERE location = ?",
                [(part.location,) for part in removed],
            )
            self._database.executemany(_INSERT, [(*_row(part), cursor.lastrowid) for part in added])
            self._database.executemany(
                "UPDATE manifest_part SET quarantined_because = ? WHERE location = ?",
                [(because, part.location) for part, because in quarantined],
            )
            self._files.commit(self._database)
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            raise StorageError(f"The manifest could not be written ({error}).") from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _open(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )

    def _make_tables(self) -> None:
        if self._database.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'manifest_format'"
        ).fetchone():
            return
        self._files.begin(self._database)
        for statement in _TABLES.split(";"):
            self._database.execute(statement)
        self._database.execute("INSERT INTO manifest_format VALUES (?)", (FORMAT,))
        self._database.execute("INSERT INTO manifest_node VALUES (?)", (secrets.randbelow(4096),))
        self._files.commit(self._database)

    def _check_format(self) -> None:
        (found,) = self._database.execute("SELECT version FROM manifest_format").fetchone()
        if found > FORMAT:
            raise StorageError(
                f"{self._path} was written by a newer Mallard (format {found}, this one reads up "
                f"to {FORMAT}). Start that version again, or upgrade this one."
            )


def _row(part: Part) -> tuple[object, ...]:
    # The sum of positions may pass 64 bits, the largest integer SQLite keeps.
    return tuple(
        str(value) if field.name == "position_sum" else value
        for field, value in zip(fields(Part), astuple(part), strict=True)
    )


def _part(row: tuple[object, ...]) -> Part:
    values = {field.name: value for field, value in zip(fields(Part), row, strict=True)}
    values["position_sum"] = int(str(values["position_sum"]))
    return Part(**values)  # type: ignore[arg-type]
