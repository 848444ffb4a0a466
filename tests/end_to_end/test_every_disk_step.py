"""Each disk operation of start-up, append and flush in turn fails, tears or is the last one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest

from mallard.buffer.buffer import Buffer
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.errors import MallardError
from mallard.event import Event
from mallard.files import Files
from mallard.jobs.flush import Flusher
from mallard.jobs.verify import verify
from mallard.store.local import LocalStore
from mallard.telemetry import Telemetry
from tests.beside import looking_at
from tests.faults import Crash, Fault, FaultyFiles, sample, sampled
from tests.waiting import until

DAY_US = 86_400_000_000
NOON_US = 1_795_262_400_000_000  # 2026-11-21 12:00 UTC
# Small segments, so that the log rolls; free_bytes is a step of its own, not a limit.
CONFIG = BufferConfig(segment_bytes=600, free_bytes_min=0)


class StillClock(Clock):
    """By which the disk takes no time, so that the event loop writes the log."""

    def monotonic(self) -> float:
        return 1.0


class Life:
    """One server's life over a folder: what it acknowledged, until it ends or is stopped."""

    def __init__(
        self,
        data: Path,
        files: Files,
        acknowledged: list[str],
        sent: list[str],
        clock: Clock | None = None,
    ) -> None:
        self.data = data
        self.clock = clock or Clock()
        self.files = files
        self.acknowledged = acknowledged
        self.sent = sent
        self.refused: list[str] = []

    def run(self, name: str) -> None:
        """Start, accept, flush, accept more over two dates, flush again, accept, stop."""
        telemetry, clock = Telemetry(), self.clock
        self.files.make_folder(self.data)
        store = LocalStore(self.data, self.files, clock)
        buffer = Buffer(CONFIG, self.data, self.files, clock, telemetry, store.node)
        flusher = Flusher(CONFIG, buffer, store, clock, telemetry)
        snapshot = store.snapshot()
        buffer.start(snapshot.watermark, snapshot.last_loaded_at, flusher.notice_commit)
        try:
            self._accept(buffer, f"{name}-a", 2)
            self._accept(buffer, f"{name}-b", 1)
            self._flush(flusher)
            self._accept(buffer, f"{name}-c", 3)
            self._flush(flusher)
            self._flush(flusher)
            self._accept(buffer, f"{name}-d", 1)
        finally:
            buffer.close()
        store.close()

    def _accept(self, buffer: Buffer, name: str, count: int) -> None:
        until(lambda: self._is_idle(buffer), "the log's thread has let go of its turn")
        names = [f"{name}{i}" for i in range(count)]
        self.sent.extend(names)
        events = [Event("a.example", NOON_US + i * DAY_US, each) for i, each in enumerate(names)]
        try:
            asyncio.run(self._append(buffer, events))
        except MallardError:
            self.refused.extend(names)
            return
        self.acknowledged.extend(names)

    def _is_idle(self, buffer: Buffer) -> bool:
        """Whether the event loop may write, or there is nothing left to wait for."""
        if not buffer._thread.is_alive() or (
            isinstance(self.files, FaultyFiles) and self.files.crashed
        ):
            return True
        return buffer._queue.empty() and not buffer._committer.turn.locked()

    async def _append(self, buffer: Buffer, events: list[Event]) -> None:
        asked = asyncio.ensure_future(buffer.append(events))
        while not asked.done():
            await asyncio.wait([asked], timeout=0.01)
            if isinstance(self.files, FaultyFiles) and self.files.crashed:
                asked.cancel()
                raise Crash
        await asked

    def _flush(self, flusher: Flusher) -> None:
        try:
            flusher.flush()
        except MallardError:
            return


def let_threads_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    complain = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not Crash:
            complain(args)

    monkeypatch.setattr(threading, "excepthook", hook)


def stored(data: Path) -> Counter[str]:
    with looking_at(data) as connection:
        return Counter(
            name for (name,) in connection.sql("SELECT event_name FROM events").fetchall()
        )


def live_and_end(data: Path, files: FaultyFiles) -> Life:
    life = Life(data, files, [], [], StillClock() if files.beside else None)
    # It may end, or not start and say so.
    with contextlib.suppress(Crash, MallardError, OSError, sqlite3.Error):
        life.run("first")
    return life


def kinds_of_steps(data: Path, beside: bool) -> list[str]:
    files = FaultyFiles(0, Fault.EIO, beside=beside)
    life = live_and_end(data, files)
    assert life.acknowledged == life.sent  # nothing fails when nothing is made to fail
    return files.kinds


@sampled(8)  # of each way to sync
@pytest.mark.parametrize("beside", [False, True], ids=["waits for syncs", "syncs beside"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_whatever_step_fails_an_acknowledged_event_is_stored_exactly_once(
    fault: Fault, beside: bool, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_threads_crash(monkeypatch)
    kinds = kinds_of_steps(tmp_path / "whole", beside)
    assert len(kinds) > 60
    assert ("end_sync" in kinds) is beside
    for step in sample(kinds, fault, every):
        data = tmp_path / f"{step}"
        files = FaultyFiles(step, fault, beside=beside)
        first = live_and_end(data, files)
        where = f"{fault.name} at step {step}, {files.step_name}"

        # The next start takes it all back, works, and leaves a folder that verifies.
        second = Life(data, Files(), first.acknowledged, first.sent)
        second.run("second")
        found = stored(data)
        assert not set(second.acknowledged) - set(found), f"lost: {where}"
        assert not set(found) - set(second.sent), f"invented: {where}"
        # What a client was told to send again is not there already.
        assert not set(found) & set(first.refused), f"refused and stored: {where}"
        assert max(found.values()) == 1, f"doubled: {where}"
        assert verify(data, Files()).problems == [], where
