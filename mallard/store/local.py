"""The store on one machine: files in folders, the manifest in SQLite.

Invariants: a file counts when the manifest names it, and not before; a file it does not name is
left over from a crash and goes at the next start. Nothing that the manifest names is overwritten.
What a commit takes out stays where it is while somebody here reads it, and for `SWAP_SECONDS`, so
that other processes finish what they read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mallard.clock import Clock
from mallard.errors import CorruptData, StorageError
from mallard.files import Files
from mallard.store import partition
from mallard.store.manifest import Manifest, Version
from mallard.store.part import Derived, Part
from mallard.store.reader import DATABASE
from mallard.store.snapshot import Change, Retired, Snapshot, applied
from mallard.store.workshop import Workshop

# How long another process may go on reading what it found in the manifest.
SWAP_SECONDS = 30.0

_log = logging.getLogger(__name__)


class LocalStore(Workshop):
    """A `Store` in one data folder; any thread may call it."""

    def __init__(
        self,
        data: Path,
        files: Files,
        clock: Clock,
        announce: Callable[[Snapshot], None] = lambda _: None,
        log_begins: float = 0,
    ) -> None:
        """Open the folder: remove what a crash left over, set damaged parts aside.

        announce: told of each new snapshot, so that readers beside the server find its files; when
        it raises OSError, nothing that it did not tell is removed. log_begins: the first position
        that the log has, infinite where it has none. Raises StorageError when the folder cannot be
        a store of this version, or the manifest is an older one than its files.
        """
        super().__init__(data, files)
        self._clock = clock
        self._announce = announce
        self._announced = -1  # the version that readers beside the server know
        self._lock = threading.RLock()
        # Taken before the other, and held while files are written that no commit names yet.
        self._publishing = threading.Lock()
        self._is_writing = False  # what may have the names of leftovers
        self._pins: Counter[int] = Counter()  # versions that are being read here
        self._leftovers: set[str] = set()
        self._in_doubt = False  # a commit failed, and the manifest was not read since
        files.make_folder(data)
        self._refuse_lost_manifest()
        self._manifest = Manifest(data / DATABASE, files)
        self._node = self._manifest.node()
        self._snapshot = self._manifest.snapshot()
        known = self._manifest.known()
        known |= {partition.retired(each.file.location) for each in self._manifest.retired()}
        others = self._folder.others(known)
        self._refuse_older_manifest(others, log_begins)
        self._folder.remove_leftovers(others)
        self._check_files()
        self._folder.prepare()
        self._tell()

    # --- what the store holds ---

    @property
    def node(self) -> int:
        """12 bits by which the event ids made here differ from those made elsewhere."""
        return self._node

    def snapshot(self) -> Snapshot:
        """Return what is live at one instant."""
        return self._snapshot

    @contextlib.contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Give the snapshot of this instant, whose files stay where they are until it is left."""
        with self._lock:
            snapshot = self._snapshot
            self._pins[snapshot.version] += 1
        try:
            yield snapshot
        finally:
            with self._lock:
                self._pins[snapshot.version] -= 1
                self._pins += Counter()  # forgets those nobody reads

    def retired(self) -> tuple[Retired, ...]:
        """Return what is no longer live and whose bytes are still there."""
        with self._lock:
            return self._manifest.retired()

    def history(self) -> list[Version]:
        """Return the versions that are remembered, the oldest first."""
        with self._lock:
            return self._manifest.history()

    def receipts(self) -> dict[str, dict[str, object]]:
        """Return what ended rules left behind, by rule."""
        with self._lock:
            return self._manifest.receipts()

    def check(self, file: Part | Derived) -> None:
        """Raise CorruptData when a live file is not what was written; see `Store`."""
        problem = self._folder.problem(file)
        if problem is None and not self._folder.is_whole(file):
            problem = "is not what was written: its SHA-256 differs"
        if problem is None:
            return
        with self._lock:
            if file not in self._snapshot.files:
                pass  # it was compacted meanwhile
            elif isinstance(file, Part):
                self._set_aside([(file, problem)])
            else:
                _log.warning("%s %s; it is made anew", file.location, problem)
                self.swap(Change("check", removed=(file,)))
        raise CorruptData(f"{file.location} {problem}.")

    # --- changes ---

    def publish(self, events: pa.Table, watermark: int) -> None:
        """Write events as level-0 parts and commit them with the watermark; see `Store`."""
        least = pc.min(events["position"]).as_py() if events.num_rows else watermark + 1
        self.publish_written(least, watermark, lambda: self.write_recent(events))

    def publish_written(
        self, first: int, watermark: int, write: Callable[[], Sequence[Part]]
    ) -> None:
        """Commit events that `write` writes as level-0 parts, with the watermark; see `Store`."""
        with self._publishing:
            with self._lock:
                self._resolve_doubt()
                if first <= self._snapshot.watermark:
                    raise StorageError(
                        "A flush that seemed to fail had happened; another will go on."
                    )
                self._is_writing = True
            try:
                added = tuple(write())
                with self._lock:
                    self._is_writing = False  # and no other commit before this one
                    self._commit_written(Change("flush", added=added), watermark)
            finally:
                self._is_writing = False

    def swap(self, change: Change) -> None:
        """Make a change live: all of it, or nothing and StorageError.

        Visits of a site-day whose parts change, and sums of a month that are made anew, go
        with it. What was written for a change that fails is removed.
        """
        with self._lock:
            try:
                self._resolve_doubt()
                change = self._with_dependants(change)
                _check_rows(change)
            except StorageError:
                self.discard(change.added)
                raise
            self._commit(change, self._snapshot.watermark)

    def discard(self, written: Iterable[Part | Derived]) -> None:
        """Remove files that were written and will not be committed."""
        with self._lock:
            locations = {file.location for file in written}
            # Not those that a commit which failed may yet bring back: see _remove_leftovers.
            self._leftovers |= self._folder.remove(locations - self._leftovers)

    def sweep(self, *, hurry: bool = False) -> int:
        """Remove the bytes of what is retired and due; return how many files went.

        What is kept for longer is moved out of readers' sight. hurry: without waiting for readers
        in other processes; those in this one are always waited for.
        """
        with self._lock:
            self._tell()
            now, done = self._clock.now_us(), []
            oldest = min(self._pins, default=self._snapshot.version)
            for each in self._manifest.retired():
                wait = 0.0 if hurry else SWAP_SECONDS
                unseen = each.version <= min(oldest, self._announced)
                if not unseen or now < each.retired_at + int(wait * 1e6):
                    continue
                if each.remove_at <= now:
                    if not self._folder.remove(_places(each.file)):
                        done.append(each)
                else:
                    self._folder.hide(each.file)
            if done:
                self._manifest.forget(done)
            return len(done)

    def revive(self, retired: Sequence[Retired], reason: str) -> None:
        """Make retired parts live again, whose bytes must still be there; raises StorageError."""
        with self._lock:
            for each in retired:
                try:
                    self._folder.bring_back(each.file)
                except OSError as error:
                    raise StorageError(f"{each.file.location} is gone ({error}).") from error
            self._in_doubt = True
            try:
                self._manifest.revive(self._clock.now_us(), retired, reason)
            finally:
                self._resolve_doubt()
            self._tell()

    def expire(self, retired: Sequence[Retired]) -> None:
        """Have the bytes of retired files go with the next sweep, whatever they were kept for."""
        with self._lock:
            self._manifest.expire(retired, self._clock.now_us())

    def source_of_retired(self, retired: Retired) -> str | None:
        """Return where a query engine reads a retired file; None when its bytes are gone."""
        with self._lock:
            return self._folder.find(_places(retired.file))

    def tidy(self) -> bool:
        """Remove files that no commit names; return whether the disk let them go; see `Store`."""
        with self._publishing, self._lock:
            return self._remove_strays(self._leftovers)  # see _remove_leftovers

    def forget_deleted(self) -> bool:
        """Leave nothing of what was deleted: no stray file, no bytes in the database's files,
        nothing in what readers beside the server are told; return whether that was possible now.

        No file of the store may be being written meanwhile, but by `publish` and
        `publish_written`.
        """
        with self._publishing, self._lock:
            self._tell()
            tidy = self._remove_strays(frozenset()) and self._manifest.compact()
            return tidy and self._announced == self._snapshot.version

    def _remove_strays(self, keep: Set[str]) -> bool:
        known = self._manifest.known() | keep
        known |= {partition.retired(each.file.location) for each in self._manifest.retired()}
        try:
            self._folder.remove_leftovers(self._folder.others(known))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the manifest."""
        with self._lock:
            self._manifest.close()

    # --- commits ---

    def _commit_written(self, change: Change, watermark: int) -> None:
        try:
            self._resolve_doubt()  # of a commit that failed while the files were written
        except StorageError:
            self.discard(change.added)
            raise
        self._commit(change, watermark)

    def _commit(self, change: Change, watermark: int) -> None:
        after = applied(self._snapshot, change, watermark)
        try:
            self._manifest.commit(self._clock.now_us(), change, watermark, after.last_loaded_at)
        except StorageError:
            self._leftovers.update(file.location for file in change.added)
            self._in_doubt = True
            self._resolve_doubt()
            if (self._snapshot.version, self._snapshot.watermark) != (after.version, watermark):
                raise
        else:
            self._snapshot = after
        self._remove_leftovers(change)
        self._tell()

    def _tell(self) -> None:
        if self._announced == self._snapshot.version:
            return
        try:
            self._announce(self._snapshot)
        except OSError as error:
            _log.error("readers beside the server do not see the newest events: %s", error)
        else:
            self._announced = self._snapshot.version

    def _resolve_doubt(self) -> None:
        # A commit that failed may have happened all the same, when only its sync failed.
        if self._in_doubt:
            self._snapshot = self._manifest.snapshot()
            self._in_doubt = False

    def _with_dependants(self, change: Change) -> Change:
        """Retire also what can be made again and would no longer be true."""
        before = self._snapshot
        touched = {
            (file.sites[0], file.date)
            for file in (*change.added, *change.removed)
            if isinstance(file, Part) and file.level
        }
        stale = [day.sessions for key in touched if (day := before.days.get(key)) and day.sessions]
        damaged = {(part.sites[0], part.date) for part, _ in before.quarantined if part.level}
        if (
            lost := {
                (file.sites[0], file.date) for file in change.removed if isinstance(file, Part)
            }
            & damaged
            & touched
        ):
            stale += self._manifest.visits_of(lost)  # no snapshot has those of a damaged part
        for file in change.added:
            if isinstance(file, Derived):
                old = (
                    before.rollups.get(file.site_month)
                    if file.kind == "rollup"
                    else before.days[file.site_id, next(iter(file.sources))].sessions
                    if (file.site_id, next(iter(file.sources))) in before.days
                    else None
                )
                stale += [old] if old else []
        known = {file.location for file in change.removed}
        more = {file.location: file for file in stale if file.location not in known}
        return dataclasses.replace(change, removed=(*change.removed, *more.values()))

    def _remove_leftovers(self, change: Change) -> None:
        """Remove what failed attempts wrote, once a commit succeeded.

        Not earlier: when a commit fails in its sync, a power loss may still bring it back until
        another takes its place, and it names these files. Nor while a flush writes them again.
        """
        if self._leftovers and not self._is_writing:
            live = self._manifest.known() | {file.location for file in change.added}
            self._leftovers = self._folder.remove(self._leftovers - live)

    # --- at the start ---

    def _refuse_lost_manifest(self) -> None:
        # SQLite would take an empty file for a new database, and every part for left over.
        if DATABASE in self._files.names(self._data) and self._files.size(self._data / DATABASE):
            return
        if any(True for _ in self._folder.locations()):
            raise StorageError(
                f"{self._data} holds Parquet files of events but no {DATABASE}, or an empty one; "
                "it says which of them count. Restore it from a backup, or start with another "
                "folder."
            )

    def _refuse_older_manifest(self, others: Sequence[str], log_begins: float) -> None:
        """Raise StorageError rather than remove what may be all there is of some events."""
        found = self._folder.only_here(others, self._snapshot, log_begins)
        if found:
            self._manifest.close()
            raise StorageError(
                f"{DATABASE} does not know {len(found)} files of events in {self._data}, such as "
                f"{found[0]}, and what they hold is neither in its other files nor in the log: it "
                f"is older than they are. Put back {DATABASE} with its {DATABASE}-wal, or restore "
                "a backup; to go on without these events, move the files away."
            )

    def _check_files(self) -> None:
        """Set aside parts that are not as the manifest says; take back those that are again."""
        harmed = [
            (part, problem)
            for part in self._snapshot.parts
            if (problem := self._folder.problem(part))
        ]
        self._set_aside(harmed)
        healed = [
            part
            for part, _ in self._snapshot.quarantined
            if self._folder.problem(part) is None and self._folder.is_whole(part)
        ]
        if healed:
            self._quarantine([(part, None) for part in healed])
        lost = tuple(file for file in self._snapshot.derived if self._folder.problem(file))
        if lost:
            _log.warning("%d files of visits and sums are damaged; they are made anew", len(lost))
            self.swap(Change("check", removed=lost))

    def _set_aside(self, harmed: Sequence[tuple[Part, str]]) -> None:
        for part, problem in harmed:
            _log.error("%s %s; its %d events are missing", part.location, problem, part.rows)
            self._folder.set_aside(part)
        if harmed:
            self._quarantine(list(harmed))

    def _quarantine(self, changes: Sequence[tuple[Part, str | None]]) -> None:
        self._resolve_doubt()
        before, self._in_doubt = self._snapshot, True
        self._manifest.commit(
            self._clock.now_us(),
            Change("quarantine"),
            before.watermark,
            before.last_loaded_at,
            quarantined=changes,
        )
        self._resolve_doubt()
        self._tell()


def _check_rows(change: Change) -> None:
    """Raise StorageError unless the same rows are in what comes and in what goes."""
    came = [file for file in change.added if isinstance(file, Part)]
    went = [file for file in change.removed if isinstance(file, Part)]
    rows = sum(part.rows for part in went) - sum(part.rows for part in came)
    positions = sum(part.position_sum for part in went) - sum(part.position_sum for part in came)
    if (rows, positions) != (change.lost_rows, change.lost_position_sum):
        raise StorageError(
            f"A {change.reason} would have changed which events are stored; it was given up."
        )


def _places(file: Part | Derived) -> tuple[str, ...]:
    """Return where the bytes may be of a file that is not live any more."""
    return (
        file.location,
        partition.retired(file.location),
        f"{partition.QUARANTINE}/{Path(file.location).name}",  # when it was damaged
    )
