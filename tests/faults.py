"""`Files` that fail, tear or stop at the n-th step, and then forget what was never synced."""

from __future__ import annotations

import errno
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from mallard.files import Files
from mallard.uring import Syncs
from tests.syncs import StandIn

T = TypeVar("T")


class Crash(SystemExit):
    """The process ends here; a thread that raises it ends without a word."""


class FailingCommits(Files):
    """Real files, but commits of the manifest raise, "before" or "after" they happen: `fail`."""

    def __init__(self) -> None:
        self.fail = ""

    def commit(self, database: sqlite3.Connection) -> None:
        if self.fail == "before":
            raise OSError(errno.EIO, "Input/output error")
        super().commit(database)
        if self.fail == "after":
            raise sqlite3.OperationalError("disk I/O error")


class Fault(Enum):
    """What happens at the chosen step."""

    EIO = "the disk fails"
    ENOSPC = "the disk is full"
    TEAR = "half of a write reaches the disk, then it fails"
    CRASH_BEFORE = "the process ends before the step"
    CRASH_AFTER = "the process ends after the step"
    POWER_LOSS = "the machine ends after the step, and what was not synced is gone"
    FAIL_AFTER = "the step happens, and an error is reported all the same"


def sampled(every: int) -> pytest.MarkDecorator:
    """Mark a test of all disk steps: it takes each so-manieth, and in `make test-long` each one."""
    long = pytest.param(1, id="each", marks=pytest.mark.long)
    return pytest.mark.parametrize("every", [pytest.param(every, id="some"), long])


EVERY = sampled(6)


def sample(kinds: Sequence[str], fault: Fault, every: int) -> list[int]:
    """Return at which steps to fail, counted from 1: each so-manieth of a kind, and one at least.

    kinds: of each step, in order. Faults begin at different ones: together they meet more of them.
    """
    of_kind: dict[str, list[int]] = defaultdict(list)
    for step, kind in enumerate(kinds, 1):
        of_kind[kind].append(step)
    first = list(Fault).index(fault)
    return sorted(
        step
        for steps in of_kind.values()
        for step in steps[first % min(every, len(steps)) :: every]
    )


class FaultyFiles(Files):
    """Real files, until step `fail_at`, counted from 1. With 0 it only counts.

    beside: whether the log is synced beside the event loop.
    """

    def __init__(self, fail_at: int, fault: Fault, *, beside: bool = False) -> None:
        self.beside = beside
        self._descriptor = -1  # what is synced beside the loop
        self.kinds: list[str] = []  # of each step so far
        self.crashed = False
        self.step_name = ""
        self._fail_at = fail_at
        self._fault = fault
        self._paths: dict[int, Path] = {}
        self._synced_bytes: dict[Path, int] = {}
        # Where something was written over since the last sync, and what was there.
        self._replaced: dict[Path, list[tuple[int, bytes]]] = defaultdict(list)
        self._databases: set[sqlite3.Connection] = set()
        self._undo: dict[Path, list[Callable[[], None]]] = {}

    @property
    def steps(self) -> int:
        """How many there were so far."""
        return len(self.kinds)

    def fail_from_here(self, step: int) -> None:
        """Fail at the step so many steps from now."""
        self._fail_at = self.steps + step

    def names(self, folder: Path) -> list[str]:
        return self._step("names", lambda: super(FaultyFiles, self).names(folder))

    def read(self, path: Path) -> bytes:
        return self._step("read", lambda: super(FaultyFiles, self).read(path))

    def chunks(self, path: Path) -> Iterator[bytes]:
        return self._step("chunks", lambda: super(FaultyFiles, self).chunks(path))

    def size(self, path: Path | str) -> int:
        return self._step("size", lambda: super(FaultyFiles, self).size(path))

    def make_folder(self, path: Path) -> None:
        self._step("make_folder", lambda: super(FaultyFiles, self).make_folder(path))

    def create(self, path: Path, mode: int = 0o600) -> int:
        def act() -> int:
            existed = path.exists()
            descriptor = super(FaultyFiles, self).create(path, mode)
            self._paths[descriptor] = path
            self._synced_bytes[path] = 0
            if not existed:
                self._later(path.parent, lambda: path.unlink(missing_ok=True))
            return descriptor

        return self._step("create", act)

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        def act(data: bytes = data) -> None:
            if at is not None:
                path = self._paths[descriptor]
                self._replaced[path].append((at, path.read_bytes()[at : at + len(data)]))
            super(FaultyFiles, self).write(descriptor, data, at)

        def tear() -> None:
            act(data[: len(data.rstrip(b"\0")) // 2])

        self._step("write", act, tear)

    def sync(self, descriptor: int) -> None:
        def act() -> None:
            super(FaultyFiles, self).sync(descriptor)
            self._note_synced(descriptor)

        self._step("sync", act)

    def open_syncs(self) -> Syncs:
        if not self.beside:
            raise OSError(errno.EPERM, "Operation not permitted")
        return StandIn()

    def begin_sync(self, descriptor: int, syncs: Syncs) -> None:
        self._descriptor = descriptor
        self._step("begin_sync", lambda: super(FaultyFiles, self).begin_sync(descriptor, syncs))

    def end_sync(self, syncs: Syncs) -> None:
        super().end_sync(syncs)  # what was begun is over, also when it failed
        self._step("end_sync", lambda: self._note_synced(self._descriptor))

    def _note_synced(self, descriptor: int) -> None:
        path = self._paths[descriptor]
        self._synced_bytes[path] = path.stat().st_size
        self._replaced.pop(path, None)

    def close(self, descriptor: int) -> None:
        self._step("close", lambda: super(FaultyFiles, self).close(descriptor))

    def rename(self, source: Path, target: Path) -> None:
        def act() -> None:
            old = target.read_bytes() if target.exists() else None
            super(FaultyFiles, self).rename(source, target)
            self._replaced[target] = self._replaced.pop(source, [])
            if source in self._synced_bytes:
                self._synced_bytes[target] = self._synced_bytes.pop(source)
            self._paths = {fd: target if p == source else p for fd, p in self._paths.items()}

            def undo() -> None:
                source.parent.mkdir(parents=True, exist_ok=True)
                target.rename(source)
                if old is not None:
                    target.write_bytes(old)

            self._later(target.parent, undo)

        self._step("rename", act)

    def overwrite(self, path: Path) -> None:
        self._step("overwrite", lambda: super(FaultyFiles, self).overwrite(path))

    def remove(self, path: Path) -> None:
        def act() -> None:
            old = path.read_bytes() if path.exists() else None
            super(FaultyFiles, self).remove(path)
            if old is not None:
                content = old
                self._later(path.parent, lambda: _put_back(path, content))

        self._step("remove", act)

    def sync_folder(self, folder: Path) -> None:
        def act() -> None:
            super(FaultyFiles, self).sync_folder(folder)
            self._undo.pop(folder, None)

        self._step("sync_folder", act)

    def free_bytes(self, folder: Path) -> int:
        return self._step("free_bytes", lambda: super(FaultyFiles, self).free_bytes(folder))

    def begin(self, database: sqlite3.Connection) -> None:
        self._databases.add(database)
        self._step("begin", lambda: super(FaultyFiles, self).begin(database))

    def commit(self, database: sqlite3.Connection) -> None:
        self._step("commit", lambda: super(FaultyFiles, self).commit(database))

    def _step(self, name: str, act: Callable[[], T], tear: Callable[[], None] | None = None) -> T:
        if self.crashed:
            raise Crash
        self.kinds.append(name)
        if self.steps != self._fail_at:
            return act()
        self.step_name = name
        if self._fault is Fault.EIO:
            raise OSError(errno.EIO, "Input/output error")
        if self._fault is Fault.ENOSPC:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self._fault is Fault.TEAR:
            if tear:
                tear()
            raise OSError(errno.EIO, "Input/output error")
        if self._fault is Fault.CRASH_BEFORE:
            self._crash()
        act()
        if self._fault is Fault.FAIL_AFTER:
            raise OSError(errno.EIO, "Input/output error")
        if self._fault is Fault.POWER_LOSS:
            self._forget_unsynced()
        self._crash()

    def _crash(self) -> NoReturn:
        self.crashed = True
        for database in self._databases:  # as the operating system lets go of a dead process's
            database.rollback()
            database.close()
        raise Crash

    def _later(self, folder: Path, undo: Callable[[], None]) -> None:
        """Remember how to take back a change of names that the folder's sync would keep."""
        self._undo.setdefault(folder, []).append(undo)

    def _forget_unsynced(self) -> None:
        for path, replaced in self._replaced.items():
            for at, old in reversed(replaced):
                with path.open("r+b") as file:
                    file.seek(at)
                    file.write(old)
        for path, size in self._synced_bytes.items():
            if path.exists() and path.stat().st_size > size:
                with path.open("r+b") as file:
                    file.truncate(size)
        for undos in self._undo.values():
            for undo in reversed(undos):
                undo()


def _put_back(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # removed when it was empty
    path.write_bytes(content)
