"""The store on one machine: parts in folders, the manifest in SQLite.

Invariants: a file counts when the manifest names it, and not before; a file it does not name is
left over from a crash and goes at the next start. Nothing that the manifest names is overwritten.
"""

from __future__ import annotations

import logging
import threading
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mallard.clock import Clock
from mallard.errors import StorageError
from mallard.event import ARROW_SCHEMA
from mallard.files import TEMPORARY_SUFFIX, Files
from mallard.store.manifest import Manifest, Snapshot
from mallard.store.part import RECENT, Part, encode_recent, split_by_date, to_parquet

DATABASE = "mallard.db"
QUARANTINE = "quarantine"
# A file without rows, so that a reader's glob over a new folder finds the columns.
EMPTY = "empty.parquet"

_log = logging.getLogger(__name__)


class LocalReader:
    """A data folder for those who read beside the server; changes nothing."""

    def __init__(self, data: Path, files: Files) -> None:
        """Open the folder; raises StorageError when it is no data folder of this version."""
        if DATABASE not in files.names(data):
            raise StorageError(f"{data} is not a Mallard data folder: it has no {DATABASE}.")
        self._data = data
        self._manifest = Manifest(data / DATABASE, files, read_only=True)

    def __enter__(self) -> LocalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._manifest.close()

    def snapshot(self) -> Snapshot:
        """Return the live parts and the watermark of this instant."""
        return self._manifest.snapshot()

    def source(self, part: Part) -> str:
        """Return the path a query engine reads a part by."""
        return str(self._data / part.location)


class LocalStore:
    """A `Store` in one data folder; `publish` may be called by any thread."""

    def __init__(self, data: Path, files: Files, clock: Clock) -> None:
        """Open the folder: remove what a crash left over, set damaged parts aside.

        Raises StorageError when the folder cannot be a store of this version.
        """
        self._data = data
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._leftovers: set[str] = set()
        self._in_doubt = False  # a commit failed, and the manifest was not read since
        self._recent = data / RECENT
        files.make_folder(self._recent)
        self._refuse_lost_manifest()
        self._manifest = Manifest(data / DATABASE, files)
        self._node = self._manifest.node()
        self._snapshot = self._manifest.snapshot()
        self._remove_orphans()
        self._check_parts()
        if EMPTY not in files.names(self._recent):
            files.replace(self._recent / EMPTY, to_parquet(ARROW_SCHEMA.empty_table()))

    @property
    def node(self) -> int:
        """12 bits by which the event ids made here differ from those made elsewhere."""
        return self._node

    def publish(self, events: pa.Table, watermark: int) -> None:
        """Write events as level-0 parts and commit them with the watermark; see `Store`."""
        with self._lock:
            self._resolve_doubt()
            if events.num_rows and pc.min(events["position"]).as_py() <= self._snapshot.watermark:
                raise StorageError("A flush that seemed to fail had happened; another will go on.")
            written = [encode_recent(rows) for rows in split_by_date(events)]
            self._write(written)
            parts = tuple(part for part, _ in written)
            before = self._snapshot
            after = Snapshot(
                before.version + 1, watermark, before.parts + parts, before.quarantined
            )
            try:
                self._manifest.commit(self._clock.now_us(), "flush", watermark, added=parts)
            except StorageError:
                self._leftovers.update(part.location for part in parts)
                self._in_doubt = True
                self._resolve_doubt()
                if self._snapshot.watermark < watermark:
                    raise
            else:
                self._snapshot = after
            self._remove_leftovers()

    def snapshot(self) -> Snapshot:
        """Return the live parts and the watermark of one instant."""
        return self._snapshot

    def source(self, part: Part) -> str:
        """Return the path a query engine reads a part by."""
        return str(self._data / part.location)

    def close(self) -> None:
        """Close the manifest."""
        with self._lock:
            self._manifest.close()

    def _resolve_doubt(self) -> None:
        # A commit that failed may have happened all the same, when only its sync failed.
        if self._in_doubt:
            self._snapshot = self._manifest.snapshot()
            self._in_doubt = False

    def _refuse_lost_manifest(self) -> None:
        names = [name for name in self._files.names(self._recent) if name != EMPTY]
        if DATABASE not in self._files.names(self._data) and any(
            name.endswith(".parquet") for name in names
        ):
            raise StorageError(
                f"{self._data} holds Parquet files of events but no {DATABASE}, which says which "
                "of them count. Restore it from a backup, or start with another folder."
            )

    def _remove_orphans(self) -> None:
        known = {part.location for part in self._snapshot.parts}
        known |= {part.location for part, _ in self._snapshot.quarantined}
        for name in self._files.names(self._recent):
            ours = name.endswith((".parquet", ".parquet" + TEMPORARY_SUFFIX)) and name != EMPTY
            if ours and f"{RECENT}/{name}" not in known:
                _log.info("removing %s, which was never committed", name)
                self._files.remove(self._recent / name)

    def _write(self, written: list[tuple[Part, bytes]]) -> None:
        locations = {part.location for part, _ in written}
        try:
            for part, content in written:
                self._files.replace(self._data / part.location, content)
        except OSError as error:
            # Not those that are left over from a commit that failed: see _remove_leftovers.
            self._leftovers |= self._remove(locations - self._leftovers)
            raise StorageError(f"Events could not be written to Parquet ({error}).") from error

    def _remove_leftovers(self) -> None:
        """Remove what failed attempts wrote, once a commit succeeded.

        Not earlier: when a commit fails in its sync, a power loss may still bring it back until
        another takes its place, and it names these files.
        """
        live = {part.location for part in self._snapshot.parts}
        self._leftovers = self._remove(self._leftovers - live)

    def _remove(self, locations: set[str]) -> set[str]:
        """Remove files with their temporary forms; return those that the disk did not let go."""
        stuck: set[str] = set()
        for location in locations:
            path = self._data / location
            try:
                self._files.remove(path.with_name(path.name + TEMPORARY_SUFFIX))
                self._files.remove(path)
            except OSError:
                stuck.add(location)
        return stuck

    def _check_parts(self) -> None:
        """Set aside parts that are not as the manifest says; take back those that are again."""
        changes: list[tuple[Part, str | None]] = []
        for part in self._snapshot.parts:
            problem = self._problem(part)
            if problem:
                _log.error("%s %s; its %d events are missing", part.location, problem, part.rows)
                self._set_aside(part)
                changes.append((part, problem))
        changes.extend(
            (part, None)
            for part, _ in self._snapshot.quarantined
            if self._problem(part) is None and self._digest(part) == part.digest
        )
        if changes:
            self._manifest.commit(
                self._clock.now_us(), "check", self._snapshot.watermark, quarantined=changes
            )
            self._snapshot = self._manifest.snapshot()

    def _problem(self, part: Part) -> str | None:
        try:
            size = self._files.size(self._data / part.location)
        except FileNotFoundError:
            return "is missing"
        if size != part.size_bytes:
            return f"has {size} bytes instead of {part.size_bytes}"
        return None

    def _digest(self, part: Part) -> str:
        return sha256(self._files.read(self._data / part.location)).hexdigest()

    def _set_aside(self, part: Part) -> None:
        path = self._data / part.location
        if path.exists():
            self._files.set_aside(path, self._data / QUARANTINE)
