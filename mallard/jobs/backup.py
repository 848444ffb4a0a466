"""Copies a data folder to another one: a backup beside the running server, or its way back.

A backup is a data folder itself. Its files never change once they are there, so a later backup
copies what is new. At every moment it is one whole state of the store, an older or a newer one:
files come first, the database that names them replaces the old one in one step, the log's tail
follows, and what nothing names any more goes last. Every file's SHA-256 is compared on its way.

Never copied: salts, because one that lies in a backup is not destroyed; what is retired; what lies
in quarantine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from mallard.buffer.frame import encode
from mallard.buffer.wal import (
    NAMES,
    LogReport,
    forget_name,
    note_name,
    read_log,
    segment_name,
    segments,
)
from mallard.errors import CorruptData, StorageError
from mallard.files import TEMPORARY_SUFFIX, Files, FolderLock, lock_holder
from mallard.jobs.verify import log_problems
from mallard.store import partition
from mallard.store.folder import Folder
from mallard.store.manifest import BESIDE, Manifest, settle
from mallard.store.part import Derived, Part
from mallard.store.reader import DATABASE, NEW_DATABASE, LocalReader
from mallard.store.snapshot import Snapshot

WAL = "wal"
# What a first backup that did not end may have left in a folder.
_FOLDERS = (WAL, NAMES, *partition.FOLDERS)
_BEGUN = {"lock", NEW_DATABASE, *(NEW_DATABASE + beside for beside in BESIDE), *_FOLDERS}
_BACK_UP_AGAIN = "What backup it holds is whole; see to the disk and back up again, which goes on."
_RESTORE_AGAIN = "See to the disk, remove the folder and restore again."
# How often files may vanish, because they were compacted meanwhile, before we give up.
TRIES = 10

File = Part | Derived
Told = Callable[[int, int], None]  # bytes that are copied, of how many


@dataclass(slots=True)
class Outcome:
    """What a copy holds. copied: files, of which the rest was there already. problems: sentences,
    each with what is damaged or missing; all else was copied.
    """

    files: int = 0
    copied: int = 0
    copied_bytes: int = 0
    part_rows: int = 0
    log_events: int = 0
    removed: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def backup(
    data: Path,
    target: Path,
    files: Files,
    also: Sequence[str] = (),
    told: Told = lambda _, __: None,
) -> Outcome:
    """Make or bring up to date a backup of a data folder, on which a server may run.

    also: names of files in the data folder to be copied too. Raises StorageError when target
    cannot be its backup or cannot be written to; what backup it holds is whole then.
    """
    _refuse_nested(data, target)
    with LocalReader(data, files) as store, _held(target, files):
        before = _earlier_backup(store, target, files)
        copy = _Copy(data, store, target, files, before, told, _BACK_UP_AGAIN)
        return copy.run(also)


def restore(source: Path, data: Path, files: Files, also: Sequence[str] = ()) -> Outcome:
    """Make a data folder of a backup; data: empty or not there.

    Raises StorageError when it is not. Without its database, which comes last, no server starts
    on it.
    """
    _refuse_nested(source, data)
    with LocalReader(source, files) as store:
        try:
            found = set(files.names(data)) - {"lost+found"}
        except NotADirectoryError as error:
            raise StorageError(f"{data} is no folder; choose one that is empty.") from error
        if found and DATABASE not in found and found <= {*_BEGUN, *also}:
            raise StorageError(
                f"{data} holds a restore that did not end. Remove the folder and restore again."
            )
        if found:
            raise StorageError(f"{data} is not empty. Restore to a folder that is.")
        with _held(data, files):
            copy = _Copy(source, store, data, files, {}, lambda _, __: None, _RESTORE_AGAIN)
            return copy.run([name for name in also if name in files.names(source)])


class _Copy:
    """One copy.

    before: by location, the digest of files that target's own manifest names. again: what to do
    when it cannot be written.
    """

    def __init__(
        self,
        data: Path,
        store: LocalReader,
        target: Path,
        files: Files,
        before: dict[str, str],
        told: Told,
        again: str,
    ) -> None:
        self._data = data
        self._store = store
        self._target = target
        self._files = files
        self._before = before
        self._told = told
        self._again = again
        self._damaged: dict[str, str] = {}  # by location
        self._outcome = Outcome()

    def run(self, also: Sequence[str]) -> Outcome:
        """Copy; raises StorageError."""
        outcome = self._outcome
        try:
            for _ in range(TRIES):
                # The tail first, the manifest second: what a flush moves in between is in both.
                report, tail = self._write_tail()
                snapshot = self._copy_manifest()
                vanished = self._copy_files(snapshot)
                if not vanished:
                    break
                self._judge(vanished)
            else:
                raise StorageError(
                    f"{self._data} changes faster than it can be copied; try again later."
                )
            for name in also:
                self._copy(self._data / name, self._target / name)
            self._replace_database(tail)
            self._remove_others(snapshot)
        except OSError as error:
            raise StorageError(
                f"{self._target} could not be written to ({error}). {self._again}"
            ) from error
        log_problems(report, snapshot.watermark, outcome.notes, outcome.problems)
        self._tell(snapshot, tail, report)
        return outcome

    # --- files ---

    def _copy_files(self, snapshot: Snapshot) -> list[File]:
        """Copy what target lacks; return what was not there to be copied."""
        wanted = [file for file in snapshot.files if not self._has(file)]
        # A backup may have a good copy of what was damaged since, and hands it on.
        quarantined = [part for part, _ in snapshot.quarantined]
        wanted += [part for part in quarantined if self._can_have(part) and not self._has(part)]
        whole, done, vanished = sum(file.size_bytes for file in wanted), 0, []
        for file in wanted:
            self._told(done, whole)
            try:
                digest = self._copy(self._data / file.location, self._target / file.location, file)
            except FileNotFoundError:
                vanished.append(file)
                continue
            except CorruptData as error:
                self._damaged[file.location] = error.detail
                continue
            if digest == file.digest:
                self._before[file.location] = digest
                self._outcome.copied += 1
                self._outcome.copied_bytes += file.size_bytes
            else:
                self._damaged[file.location] = "is not what was written: its SHA-256 differs"
            done += file.size_bytes
        return vanished

    def _has(self, file: File) -> bool:
        if file.location in self._damaged:
            return True  # nothing more can be had
        path = self._target / file.location
        try:
            if self._files.size(path) != file.size_bytes:
                return False
        except FileNotFoundError:
            return False
        if self._before.get(file.location) == file.digest:
            return True
        return _digest(self._files, path) == file.digest  # of a backup that did not end

    def _can_have(self, part: Part) -> bool:
        return part.location.rpartition("/")[2] in self._files.names(
            (self._data / part.location).parent
        )

    def _copy(self, source: Path, target: Path, file: File | None = None) -> str:
        """Copy a file whole or not at all; return its SHA-256, and leave no copy if it is wrong.

        Raises FileNotFoundError when source is not there.
        """
        files, digest = self._files, sha256()
        content = _pieces(files, source)
        first = next(content, b"")  # before anything is written: it may have vanished
        files.make_folder(target.parent)
        temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
        descriptor = files.create(temporary)
        try:
            for piece in _chain(first, content):
                digest.update(piece)
                files.write(descriptor, piece)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        if file and digest.hexdigest() != file.digest:
            files.remove(temporary)
        else:
            files.rename(temporary, target)
            files.sync_folder(target.parent)
        return digest.hexdigest()

    def _judge(self, vanished: Sequence[File]) -> None:
        """Tell what was compacted meanwhile from what is missing although it should be there."""
        now = self._store.snapshot()
        live = {file.location for file in now.files}
        for file in vanished:
            if file.location in live and not (self._data / file.location).exists():
                self._damaged[file.location] = "is missing"

    # --- log and database ---

    def _copy_manifest(self) -> Snapshot:
        try:
            return self._store.copy_manifest(self._target / NEW_DATABASE)
        except StorageError as error:
            raise StorageError(f"{error.detail} {self._again}") from error

    def _write_tail(self) -> tuple[LogReport, str | None]:
        """Write what is in no part yet as one segment, under a temporary name; return its name."""
        report, watermark = LogReport(), self._store.snapshot().watermark
        folder = self._target / WAL
        self._files.make_folder(folder)
        self._files.make_folder(self._target / NAMES)
        for left in self._files.names(folder):  # by one that did not end, on a full disk perhaps
            if left.endswith(TEMPORARY_SUFFIX):
                self._files.remove(folder / left)
        descriptor, name = None, None
        try:
            for frame in read_log(self._data / WAL, self._files, watermark, report):
                if descriptor is None:
                    name = segment_name(frame.first_position)
                    descriptor = self._files.create(folder / f"{name}{TEMPORARY_SUFFIX}")
                self._files.write(descriptor, b"".join(encode(frame)))
            if report.unusable:
                raise StorageError(" ".join(report.unusable))
            if descriptor is not None:
                self._files.sync(descriptor)
        finally:
            if descriptor is not None:
                self._files.close(descriptor)
        return report, name

    def _replace_database(self, tail: str | None) -> None:
        """Make target what was copied.

        In place of an older backup the database goes first: it covers what the old log holds, or
        the old log goes on from it; in the other order there could be a hole between the two. In a
        new folder it goes last, and nothing can be read before.
        """
        folder = self._target / WAL

        def put_tail() -> None:
            if tail:
                self._files.rename(folder / f"{tail}{TEMPORARY_SUFFIX}", folder / tail)
                self._files.sync_folder(folder)
                note_name(folder, tail, self._files)

        new = DATABASE not in self._files.names(self._target)
        if new:
            put_tail()
        self._files.rename(self._target / NEW_DATABASE, self._target / DATABASE)
        self._files.sync_folder(self._target)
        if not new:
            put_tail()
        for _, name in segments(folder, self._files):  # oldest first
            if name != tail:
                forget_name(folder, name, self._files)
                self._files.remove(folder / name)

    def _remove_others(self, snapshot: Snapshot) -> None:
        """Remove what the new database does not name; a good copy of what is damaged stays."""
        named = {file.location for file in snapshot.files}
        named |= {part.location for part, _ in snapshot.quarantined}
        folder = Folder(self._target, self._files)
        others = folder.others(named)
        stuck = folder.remove(others)
        self._outcome.removed = len(others) - len(stuck)

    def _tell(self, snapshot: Snapshot, tail: str | None, report: LogReport) -> None:
        outcome = self._outcome
        live = list(snapshot.files)
        lacking = [file for file in live if file.location in self._damaged]
        outcome.files = len(live) - len(lacking)
        outcome.part_rows = sum(
            file.rows for file in live if isinstance(file, Part) and file not in lacking
        )
        outcome.log_events = max(0, report.next_position - 1 - snapshot.watermark) if tail else 0
        for file in lacking:
            what = (
                f"its {file.rows} events are missing from the copy"
                if isinstance(file, Part)
                else "the server makes it again"
            )
            outcome.problems.append(f"{file.location} {self._damaged[file.location]}; {what}.")
        for part, reason in snapshot.quarantined:
            if self._has(part):
                outcome.notes.append(
                    f"{part.location} {reason}; this copy has it whole, and a server that starts "
                    "on it takes it in again"
                )
            else:
                outcome.problems.append(
                    f"{part.location} {reason}; its {part.rows} events are missing from the copy."
                )


# --- what may be copied where ---


def _refuse_nested(one: Path, other: Path) -> None:
    first, second = one.resolve(), other.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise StorageError(f"{one} and {other} lie in one another; choose a folder elsewhere.")


def _refuse_links(target: Path) -> None:
    # What is in it may be the store's own, and a backup removes what its database does not name.
    for path in (target / name for name in _FOLDERS):
        if path.is_symlink():
            raise StorageError(f"{path} is a symbolic link. Remove it, or choose another folder.")


@contextlib.contextmanager
def _held(target: Path, files: Files) -> Iterator[None]:
    _refuse_links(target)
    try:
        files.make_folder(target)
        lock = FolderLock(target)
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written to ({error}). See to it, or choose another folder."
        ) from error
    except StorageError as error:
        raise StorageError(
            f"{target} is in use by another process of Mallard ({lock_holder(target)}). Wait until "
            "that has ended, or choose another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _earlier_backup(store: LocalReader, target: Path, files: Files) -> dict[str, str]:
    """Return the digests of the files of the backup in target, by location.

    Raises StorageError when it is not an earlier state of this store.
    """
    names = set(files.names(target)) - {"lost+found"}
    if DATABASE not in names:
        if names - _BEGUN:
            raise StorageError(f"{target} is neither empty nor a backup; choose another folder.")
        return {}
    if "salts" in names:
        raise StorageError(f"A server ran on {target}; choose another folder for the backup.")
    settle(target / DATABASE)
    with LocalReader(target, files) as old:
        if old.manifest.node() != store.manifest.node():
            raise StorageError(f"{target} is a backup of another store; choose another folder.")
        _refuse_newer(old.manifest, store.manifest, target)
        snapshot = old.snapshot()
    digests = {file.location: file.digest for file in snapshot.files}
    return digests | {part.location: part.digest for part, _ in snapshot.quarantined}


def _refuse_newer(old: Manifest, store: Manifest, target: Path) -> None:
    versions = {each.version: each.committed_at for each in store.history()}
    for last in old.history()[-1:]:
        newest = max(versions, default=0)
        if last.version > newest or versions.get(last.version, last.committed_at) != (
            last.committed_at
        ):
            raise StorageError(
                f"{target} holds what this store does not: it was restored from an older backup, "
                "or a server ran on the backup. Keep it, and choose another folder."
            )


def _digest(files: Files, path: Path) -> str:
    digest = sha256()
    for piece in files.chunks(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(files: Files, source: Path) -> Iterator[bytes]:
    try:
        yield from files.chunks(source)
    except FileNotFoundError:
        raise
    except OSError as error:  # which is not the target's
        raise CorruptData(f"cannot be read ({error.strerror})") from error


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
