"""Every disk operation Mallard makes, so that tests can fail, tear or stop at each of them.

Invariant: a name that exists under its final name is whole. `replace` writes a temporary file,
syncs it, renames it and syncs the folder, in that order; what a start writes anew it need not sync.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

from mallard.errors import StorageError
from mallard.uring import Syncs

TEMPORARY_SUFFIX = ".tmp"
# Of a file in memory at a time.
CHUNK_BYTES = 1024 * 1024
# What a server that was killed had at work is killed with it, and gone soon.
ORPHANS_END_SECONDS = 10.0
ORPHANS_LOOK_SECONDS = 0.02


class Files:
    """The operating system's files. Each method is one step; a step raises OSError or happened."""

    def make_folder(self, path: Path) -> None:
        """Create a folder for its owner only, and its parents, if they are not there.

        Their names survive a power loss: what is synced inside them is worth nothing without.
        """
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for folder in reversed(missing):  # mkdir would give its parents another mode
            folder.mkdir(mode=0o700, exist_ok=True)
            self.sync_folder(folder.parent)

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted; a missing folder has none."""
        try:
            return sorted(entry.name for entry in folder.iterdir())
        except FileNotFoundError:
            return []

    def tree(self, folder: Path) -> list[str]:
        """Return every file below a folder, relative to it with "/" between; sorted."""
        found: list[str] = []
        folders = [""]
        while folders:
            inner = folders.pop()
            # One that is gone, or never was, has none.
            with contextlib.suppress(FileNotFoundError), os.scandir(f"{folder}/{inner}") as entries:
                for entry in entries:
                    if not entry.is_dir():
                        found.append(inner + entry.name)
                    elif not entry.is_symlink():
                        folders.append(f"{inner}{entry.name}/")
        return sorted(found)

    def remove_empty_folder(self, folder: Path) -> None:
        """Remove a folder that holds nothing; leave any other as it is."""
        with contextlib.suppress(OSError):
            folder.rmdir()

    def read(self, path: Path) -> bytes:
        """Return a file's whole content."""
        return path.read_bytes()

    def chunks(self, path: Path) -> Iterator[bytes]:
        """Yield a file's content piece by piece; opening it is the step."""
        with path.open("rb") as file:
            while content := file.read(CHUNK_BYTES):
                yield content

    def size(self, path: Path | str) -> int:
        """Return a file's size in bytes."""
        return os.stat(path).st_size  # noqa: PTH116 - see Folder.problem

    def create(self, path: Path, mode: int = 0o600) -> int:
        """Create an empty file, or empty an existing one, and return a descriptor to write by."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        """Write all of data behind what was written before, or from the byte `at` on.

        When it raises, any part of data may have been written.
        """
        view = memoryview(data)
        while view:
            if at is None:
                written = os.write(descriptor, view)
            else:
                written = os.pwrite(descriptor, view, at)
                at += written
            view = view[written:]

    def sync(self, descriptor: int) -> None:
        """Return once what was written survives a power loss."""
        os.fdatasync(descriptor)

    def open_syncs(self) -> Syncs:
        """Return what syncs beside its caller; raises OSError where the system lets nobody."""
        return Syncs()

    def begin_sync(self, descriptor: int, syncs: Syncs) -> None:
        """Begin what `sync` does; the descriptor stays open until `end_sync`."""
        syncs.begin(descriptor)

    def end_sync(self, syncs: Syncs) -> None:
        """Return once the sync that was begun is over, and raise what `sync` would have."""
        syncs.end()

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, in place of any file that has it."""
        source.replace(target)

    def overwrite(self, path: Path) -> None:
        """Put zeros over a file's content where it lies, and return once they are on disk."""
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is removed already."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in a folder survive a power loss."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes may still be written below a folder."""
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize

    def begin(self, database: sqlite3.Connection) -> None:
        """Begin a writing transaction."""
        database.execute("BEGIN IMMEDIATE")

    def commit(self, database: sqlite3.Connection) -> None:
        """Commit a transaction; when it raises, it did not happen."""
        database.execute("COMMIT")

    def replace(self, path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
        """Write a file whole or not at all, and return once it survives a power loss.

        Not durable: after a power loss it may be as it was before, or empty.
        """
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        descriptor = self.create(temporary, mode)
        try:
            self.write(descriptor, data)
            if durable:
                self.sync(descriptor)
        finally:
            self.close(descriptor)
        self.rename(temporary, path)
        if durable:
            self.sync_folder(path.parent)

    def set_aside(self, path: Path, folder: Path) -> None:
        """Move a file into a folder; where its name is taken there, it gets a number behind it."""
        self.make_folder(folder)
        taken = set(self.names(folder))
        numbered = (f"{path.name}.{number}" for number in itertools.count(2))
        names = itertools.chain([path.name], numbered)
        self.rename(path, folder / next(name for name in names if name not in taken))
        self.sync_folder(folder)


class FolderLock:
    """Holds a data folder for one server; the operating system lets go when the process ends.

    And when those have ended that it gave its descriptor: they write there too.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder, or raise StorageError that says who has it.

        Waits a little for what a server that is gone left at work.
        """
        path = folder / "lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(monotonic() + ORPHANS_END_SECONDS)
        except OSError as error:
            holder = self._holder()
            os.close(self._descriptor)
            raise StorageError(
                f"{folder} is in use by another Mallard server (process {holder}). "
                "Stop that one, or give this one a folder of its own with --data."
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    @property
    def descriptor(self) -> int:
        """What holds the folder as long as any process has it open."""
        return self._descriptor

    def release(self) -> None:
        """Let the folder go."""
        os.close(self._descriptor)

    def _take(self, give_up_at: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if _is_running(self._holder()) or monotonic() > give_up_at:
                    raise
                sleep(ORPHANS_LOOK_SECONDS)
            else:
                return

    def _holder(self) -> str:
        return os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"


def _is_running(process: str) -> bool:
    """Whether a process may still be there."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True


def lock_holder(folder: Path) -> str | None:
    """Return the process that holds a folder, as it says itself; None when nobody does."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(descriptor)  # which lets go at once
    return None
