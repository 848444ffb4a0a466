"""Which files are live and up to which position they go: the only truth about the store.

It lies in SQLite, in `mallard.db`, in tables of its own. A version is one commit: files in, files
out, rules and the watermark, together or not at all. Nothing is live but what the newest version
says. What a commit takes out is *retired*: known until its bytes are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mallard.errors import StorageError
from mallard.files import Files
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Change, Retired, SiteDay, Snapshot
from mallard.store.tables import NAMES, TABLE_OF, TABLES, days_of, file_of, rule_of, stored

FORMAT = 2
BUSY_SECONDS = 30.0
BESIDE = ("-journal", "-wal", "-shm")  # behind the name of a database that is written to
# Versions that come with every flush are forgotten after this many; what people did is kept.
ROUTINE = ("flush", "merge", "compaction", "rollup", "check")
ROUTINE_VERSIONS = 1_000

_File = TypeVar("_File", Part, Derived)


@dataclass(frozen=True, slots=True)
class Version:
    """One line of the store's history; committed_at in microseconds.

    detail: what the change says of itself. Where it took events, `lost_rows` and
    `lost_position_sum` say how many; negative where it brought some back.
    """

    version: int
    committed_at: int
    reason: str
    watermark: int
    detail: dict[str, Any]


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
                    # What was deleted, such as whom an erasure was about, leaves no bytes behind.
                    self._database.execute("PRAGMA secure_delete = ON")
                    self._make_tables()
                self._check_format()
            except BaseException:
                self._database.close()
                raise
        # ValueError: SQLite's own words quote bytes of a damaged file, which may be no text.
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StorageError(
                f"{path} cannot be opened as Mallard's database ({error}). Restore it from a "
                "backup, or see whether the disk is full or read-only."
            ) from error

    def snapshot(self) -> Snapshot:
        """Return what is live now, in one consistent read; raises StorageError."""
        with self._reading() as database:
            newest = database.execute(
                "SELECT version, watermark, last_loaded_at FROM manifest_version "
                "ORDER BY version DESC LIMIT 1"
            ).fetchone() or (0, 0, 0)
            parts = self._files_of(Part, "retired_in IS NULL AND quarantined_because IS NULL")
            derived = self._files_of(Derived, "retired_in IS NULL")
            quarantined = self._files_of(
                Part, "retired_in IS NULL AND quarantined_because IS NOT NULL"
            )
            rules = database.execute(
                "SELECT rule_id, created_at, last_position, definition, affected "
                "FROM manifest_rule ORDER BY created_at, rule_id"
            ).fetchall()
            recent = [part for part, _ in parts if part.level == 0]
            return Snapshot(
                version=newest[0],
                watermark=newest[1],
                last_loaded_at=newest[2],
                recent=tuple(sorted(recent, key=lambda part: (part.date, part.first_position))),
                days=days_of(
                    [part for part, _ in parts if part.level], [each for each, _ in derived]
                ),
                rollups={each.site_month: each for each, _ in derived if each.kind == "rollup"},
                rules=tuple(rule_of(row) for row in rules),
                quarantined=tuple(
                    (part, str(row["quarantined_because"])) for part, row in quarantined
                ),
            )

    def visits_of(self, days: Set[SiteDay]) -> list[Derived]:
        """Return the live files of visits of site-days, also of those whose parts are set aside."""
        with self._reading():
            files = self._files_of(Derived, "retired_in IS NULL AND kind = 'sessions'")
        return [each for each, _ in files if (each.site_id, next(iter(each.sources))) in days]

    def retired(self) -> tuple[Retired, ...]:
        """Return what is no longer live and whose bytes are not removed yet."""
        with self._reading():
            files: list[tuple[Part | Derived, sqlite3.Row]] = [
                *self._files_of(Part, "retired_in IS NOT NULL"),
                *self._files_of(Derived, "retired_in IS NOT NULL"),
            ]
        return tuple(
            Retired(
                each,
                row["retired_in"],
                row["retired_at"],
                row["remove_at"],
                row["retired_because"],
            )
            for each, row in files
        )

    def known(self) -> set[str]:
        """Return the location of every file that is live, set aside or retired."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT location FROM manifest_part UNION ALL SELECT location FROM manifest_derived"
            ).fetchall()
        return {location for (location,) in rows}

    def history(self) -> list[Version]:
        """Return the versions that are remembered, the oldest first."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT version, committed_at, reason, watermark, detail FROM manifest_version "
                "ORDER BY version"
            ).fetchall()
            return [
                Version(version, at_us, reason, watermark, json.loads(detail))
                for version, at_us, reason, watermark, detail in rows
            ]

    def receipts(self) -> dict[str, dict[str, Any]]:
        """Return what ended rules left behind, by rule."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT rule_id, receipt FROM manifest_receipt ORDER BY committed_at"
            ).fetchall()
            return {rule_id: json.loads(receipt) for rule_id, receipt in rows}

    def damage(self) -> str | None:
        """Return what is wrong with the database as a whole, in SQLite's words; None if nothing."""
        with self._reading() as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        return None if found == "ok" else str(found)

    def node(self) -> int:
        """Return this folder's 12 bits, by which its event ids differ from those of others."""
        return int(self._database.execute("SELECT node FROM manifest_node").fetchone()[0])

    def commit(
        self,
        at_us: int,
        change: Change,
        watermark: int,
        last_loaded_at: int,
        quarantined: Iterable[tuple[Part, str | None]] = (),
    ) -> None:
        """Make a new version; when it raises StorageError, nothing changed.

        quarantined: parts with the reason they are set aside for, or None to take one back.
        """
        with self._writing() as database:
            version = database.execute(
                "INSERT INTO manifest_version "
                "(committed_at, reason, watermark, last_loaded_at, detail) VALUES (?, ?, ?, ?, ?)",
                (at_us, change.reason, watermark, last_loaded_at, json.dumps(_detail(change))),
            ).lastrowid
            assert version is not None
            database.execute(
                f"DELETE FROM manifest_version WHERE version = ? AND reason IN {ROUTINE}",
                (version - ROUTINE_VERSIONS,),
            )
            remove_at = at_us + int(change.keep_seconds * 1e6)
            for file in change.removed:
                self._retire(file, (version, at_us, remove_at, change.reason))
            for file in change.added:
                self._add(file, version)
            database.executemany(
                "UPDATE manifest_part SET quarantined_because = ? WHERE location = ?",
                [(because, part.location) for part, because in quarantined],
            )
            self._change_rules(change, at_us)

    def forget(self, retired: Sequence[Retired]) -> None:
        """Take note that the bytes of retired files are removed."""
        with self._writing() as database:
            for each in retired:
                database.execute(
                    f"DELETE FROM {TABLE_OF[type(each.file)]} "
                    "WHERE location = ? AND retired_in IS NOT NULL",
                    (each.file.location,),
                )

    def expire(self, retired: Sequence[Retired], at_us: int) -> None:
        """Have no retired file of these be kept beyond an instant."""
        with self._writing() as database:
            for each in retired:
                database.execute(
                    f"UPDATE {TABLE_OF[type(each.file)]} SET remove_at = min(remove_at, ?) "
                    "WHERE location = ? AND retired_in IS NOT NULL",
                    (at_us, each.file.location),
                )

    def revive(self, at_us: int, retired: Sequence[Retired], reason: str) -> None:
        """Make retired parts live again, in a version of its own."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO manifest_version "
                "(committed_at, reason, watermark, last_loaded_at, detail) "
                "SELECT ?, ?, watermark, last_loaded_at, ? FROM manifest_version "
                "ORDER BY version DESC LIMIT 1",
                (at_us, reason, json.dumps(_came_back(retired))),
            )
            for each in retired:
                database.execute(
                    f"UPDATE {TABLE_OF[type(each.file)]} SET retired_in = NULL, "
                    "retired_at = NULL, remove_at = NULL, retired_because = NULL "
                    "WHERE location = ?",
                    (each.file.location,),
                )

    def compact(self) -> bool:
        """Leave nothing of deleted rows in the database's log; return whether that was possible.

        It is not while somebody reads an older version.
        """
        try:
            (busy, _, _) = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            # SQLite does not wait for the disk to know that its log is empty.
            log = os.open(f"{self._path}-wal", os.O_RDONLY)
            try:
                os.fsync(log)
            finally:
                os.close(log)
        except (sqlite3.Error, OSError):
            return False
        return not busy

    def copy(self, path: Path) -> None:
        """Write the database as it is now to another file, synced, in one piece.

        What is retired is not in it: its files stay behind. Raises StorageError.
        """
        try:
            # A log that a copy left behind that did not end would be taken for the new one's.
            for beside in ("", *BESIDE):
                path.with_name(path.name + beside).unlink(missing_ok=True)
            path.touch(mode=0o600)
            with contextlib.closing(sqlite3.connect(path)) as target:
                self._database.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
                target.execute("PRAGMA secure_delete = ON")
                for table in TABLE_OF.values():
                    target.execute(f"DELETE FROM {table} WHERE retired_in IS NOT NULL")
                target.commit()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"The manifest cannot be copied to {path} ({error}).") from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            self._database.execute("BEGIN")
            try:
                yield self._database
            finally:
                self._database.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError) as error:  # or what it says is not JSON
            raise StorageError(
                f"{self._path} cannot be read ({error}). Restore it from a backup."
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self._files.begin(self._database)
            yield self._database
            self._files.commit(self._database)
        except (sqlite3.Error, OSError, StorageError) as error:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            raise StorageError(f"The manifest could not be written ({error}).") from error

    def _files_of(self, kind: type[_File], where: str) -> list[tuple[_File, sqlite3.Row]]:
        cursor = self._database.cursor()
        cursor.row_factory = sqlite3.Row
        rows = cursor.execute(f"SELECT * FROM {TABLE_OF[kind]} WHERE {where} ORDER BY location")
        return [(file_of(kind, row), row) for row in rows]

    def _add(self, file: Part | Derived, version: int) -> None:
        names = NAMES[type(file)]
        self._database.execute(
            f"INSERT INTO {TABLE_OF[type(file)]} ({', '.join(names)}, added_in) "
            f"VALUES ({', '.join('?' * len(names))}, ?)",
            (*(stored(name, getattr(file, name)) for name in names), version),
        )

    def _retire(self, file: Part | Derived, why: tuple[int, int, int, str]) -> None:
        found = self._database.execute(
            f"UPDATE {TABLE_OF[type(file)]} SET retired_in = ?, retired_at = ?, remove_at = ?, "
            "retired_because = ? WHERE location = ? AND retired_in IS NULL",
            (*why, file.location),
        ).rowcount
        if not found:
            raise StorageError(f"{file.location} is not live any more")

    def _change_rules(self, change: Change, at_us: int) -> None:
        for rule in change.rules_added:
            self._database.execute(
                "INSERT INTO manifest_rule VALUES (?, ?, ?, ?, ?)",
                (
                    rule.rule_id,
                    rule.created_at,
                    rule.last_position,
                    rule.definition,
                    json.dumps(sorted(rule.affected)),
                ),
            )
        for rule_id in change.rules_removed:
            self._database.execute("DELETE FROM manifest_rule WHERE rule_id = ?", (rule_id,))
        for rule_id, receipt in change.receipts.items():
            self._database.execute(
                "INSERT OR REPLACE INTO manifest_receipt VALUES (?, ?, ?)",
                (rule_id, at_us, receipt),
            )

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
        for statement in TABLES.split(";"):
            self._database.execute(statement)
        self._database.execute("INSERT INTO manifest_format VALUES (?)", (FORMAT,))
        self._database.execute("INSERT INTO manifest_node VALUES (?)", (secrets.randbelow(4096),))
        self._files.commit(self._database)

    def _check_format(self) -> None:
        (found,) = self._database.execute("SELECT version FROM manifest_format").fetchone()
        if found < FORMAT:
            raise StorageError(
                f"{self._path} is of format {found}, which no release of Mallard wrote. Start with "
                "another folder."
            )
        if found > FORMAT:
            raise StorageError(
                f"{self._path} was written by a newer Mallard (format {found}, this one reads up "
                f"to {FORMAT}). Start that version again, or upgrade this one."
            )


def settle(path: Path) -> None:
    """Make a database that nobody has open one file, with what its log holds.

    Raises StorageError when that cannot be.
    """
    if not path.with_name(f"{path.name}-wal").exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be opened ({error}).") from error


def _detail(change: Change) -> dict[str, object]:
    """Return what history says of a change; with what it took, so that events can be counted."""
    if not change.lost_rows:
        return dict(change.detail)
    lost = {"lost_rows": change.lost_rows, "lost_position_sum": change.lost_position_sum}
    return {**change.detail, **lost}


def _came_back(retired: Sequence[Retired]) -> dict[str, object]:
    parts = [each.file for each in retired if isinstance(each.file, Part)]
    return {
        "parts": len(parts),
        "lost_rows": -sum(part.rows for part in parts),
        "lost_position_sum": -sum(part.position_sum for part in parts),
    }
