"""A buffer over a folder that tests can fail, hold up and start anew."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mallard.buffer.buffer import Buffer
from mallard.buffer.commit import Receipt
from mallard.buffer.wal import LogReport, read_log
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.event import Frame
from mallard.files import Files
from mallard.telemetry import Telemetry
from mallard.uring import Syncs
from tests.factories import make_event
from tests.syncs import StandIn
from tests.waiting import until

NODE = 7


class SetClock(Clock):
    """Says what the test likes."""

    def __init__(self) -> None:
        self.us = 1_000
        self.seconds: float | None = None  # None: as they pass

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return super().monotonic() if self.seconds is None else self.seconds


class Failing(Files):
    """Real files, but the operations in `fail` raise, and writing can be held up.

    beside: whether syncs go on beside the event loop.
    """

    def __init__(self, *, beside: bool) -> None:
        self.beside = StandIn() if beside else None
        self.fail: set[str] = set()
        self.free = 1 << 40
        self.writes: list[int] = []
        self.syncs = 0
        self.go = threading.Event()
        self.go.set()
        self.held = threading.Event()
        self.writers: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        self.writers.append(threading.current_thread().name)
        self.meanwhile()
        if not self.go.is_set():
            self.held.set()
            assert self.go.wait(30)
        super().write(descriptor, data, at)
        self.writes.append(len(data))
        if "write" in self.fail:
            raise OSError(errno.ENOSPC, "No space left on device")

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync(descriptor)
        if "sync" in self.fail:
            raise OSError(errno.EIO, "Input/output error")

    def open_syncs(self) -> Syncs:
        if self.beside is None:
            raise OSError(errno.EPERM, "Operation not permitted")
        return self.beside

    def begin_sync(self, descriptor: int, syncs: Syncs) -> None:
        self.syncs += 1
        super().begin_sync(descriptor, syncs)

    def end_sync(self, syncs: Syncs) -> None:
        super().end_sync(syncs)
        if {"sync", "end_sync"} & self.fail:
            raise OSError(errno.EIO, "Input/output error")

    def free_bytes(self, folder: Path) -> int:
        return self.free


class Rig:
    """A buffer over a folder that tests can fail, and that can be started anew."""

    def __init__(self, data: Path, *, beside: bool = False, **settings: Any) -> None:
        self.data = data
        self.config = BufferConfig(**{"free_bytes_min": 1_000, **settings})
        self.files = Failing(beside=beside)
        self.clock = SetClock()
        self.commits = 0
        self.report = self.start()

    @property
    def syncs(self) -> StandIn:
        assert self.files.beside is not None
        return self.files.beside

    def start(self, watermark: int = 0, loaded_at: int = 0) -> LogReport:
        self.telemetry = Telemetry()
        self.buffer = Buffer(
            self.config, self.data, self.files, self.clock, self.telemetry, node=NODE
        )
        return self.buffer.start(watermark, loaded_at, self._committed)

    def _committed(self) -> None:
        self.commits += 1

    def logged(self) -> list[Frame]:
        return list(read_log(self.data / "wal", Files(), 0, LogReport()))

    async def quick(self) -> None:
        """Return once the event loop writes itself: the disk takes no time by the test's clock."""
        self.clock.seconds = 100.0
        await self.buffer.append([make_event(event_name="before")])
        assert self.files.writers == ["mallard-log"]
        self.thread_is_through()

    def thread_is_through(self) -> None:
        """Return once the thread, which settles appends first, has let go of its turn."""
        with self.buffer._committer.turn:
            pass

    async def held_up(self) -> asyncio.Future[Receipt]:
        """Append one event and return while the buffer's thread is in the middle of its write."""
        self.files.go.clear()
        waiting = asyncio.ensure_future(self.buffer.append([make_event(event_name="first")]))
        await until_true(self.files.held.is_set, "the write began")
        return waiting


async def until_true(look: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, look, what)


def names(frames: tuple[Frame, ...] | list[Frame]) -> list[str]:
    return [event.event_name for frame in frames for event in frame.events]


Rigs = Callable[..., Rig]
