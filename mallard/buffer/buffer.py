"""Accepts events: on the event loop where the disk is quick, else on a thread of its own.

What came in one turn of the event loop is one group. Where syncs take a tenth of a millisecond, as
on most machines, the loop commits it itself: everybody in it waits for that sync anyway, and
two threads that hand the interpreter to and fro for each group cost the processor more than
the events do. The thread takes over for as long as the disk is slow or fails. `commit.Committer`
does the same in either case; its `turn` says who.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mallard.buffer.commit import (
    Append,
    Committer,
    Group,
    Receipt,
    Settle,
    Settled,
    Tell,
    refusal,
)
from mallard.buffer.frame import size_bytes
from mallard.buffer.ring import Ring
from mallard.buffer.room import Room
from mallard.buffer.wal import LogReport, Wal
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.errors import Overloaded
from mallard.event import Event, Frame, Line, Row, line_of
from mallard.files import Files
from mallard.telemetry import Telemetry
from mallard.uring import Syncs

# Writes on the loop that take longer than this on average (of the last eight or so) send the
# following ones to the thread, for so many times as long as the last one took. A write can wait for
# the interpreter too, up to 5 ms, so a single one says little; a stall of 20 ms is enough.
QUICK_SECONDS = 0.002
AWAY_TIMES = 50
# A batch is the thread's where a sync is waited for: meanwhile the loop reads the next one.
LOOP_EVENTS_MAX = 256
GROUP_EVENTS_MAX = 5_000  # events in one write; beyond it waiting longer saves no syncs
# After the thread wrote for this many requests or more, its next write waits this long for
# company, so that not each is for a handful. Who comes alone never waits. (With 64 connections:
# 100 us of processor time a request without it, 68 with; waiting 0.02 or 0.2 ms instead made 5 and
# 10 per cent fewer requests a second, 1 ms a quarter fewer.)
BUSY_APPENDS = 4
GATHER_SECONDS = 0.0001
PROBE_SECONDS = 1.0  # how often a failed log is tried again when no request does it
_make_append = Append._make

_log = logging.getLogger(__name__)


class Buffer:
    """The events that are accepted and not yet in parts."""

    def __init__(
        self,
        config: BufferConfig,
        data: Path,
        files: Files,
        clock: Clock,
        telemetry: Telemetry,
        node: int,
    ) -> None:
        """Make a buffer over `data/wal`; `start` reads what is there.

        node: 12 bits that tell this server's event ids from those of others.
        """
        self._config = config
        self._folder = data / "wal"
        self._files = files
        self._clock = clock
        self._telemetry = telemetry
        self._wal = Wal(self._folder, files, config.segment_bytes, data / "quarantine")
        self._ring = Ring(config.capacity_events, config.capacity_bytes)
        self._room = Room(self._ring)
        self._committer = Committer(
            config, self._folder, files, clock, telemetry, node, self._wal, self._ring
        )
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._group: Group | None = None  # of this turn of the event loop
        self._loop_from = math.inf  # when the loop may write again; not before the first write
        self._pace = QUICK_SECONDS / 2  # what a write on the loop takes
        self._syncs: Syncs | None = None  # None: whoever writes waits for the sync
        self._watched: asyncio.AbstractEventLoop | None = None  # the loop that hears of syncs
        self._under_way: asyncio.AbstractEventLoop | None = None  # whose group is being synced
        self._landing = threading.Lock()
        self._trimming = threading.Lock()  # one thread at a time removes segments
        self._thread = threading.Thread(target=self._run, name="mallard-log", daemon=True)
        self._closed = False
        self._door = threading.Lock()  # so that nothing comes into the queue after its end

    def start(self, watermark: int, loaded_at: int, on_commit: Callable[[], None]) -> LogReport:
        """Take back from the log what parts do not hold, then accept events.

        watermark: the last position in parts. loaded_at: the latest commit time in parts, in
        microseconds. on_commit: called after each commit, on any thread; must be short.
        """
        frames, report = self._wal.recover(watermark)
        for frame in frames:
            self._ring.restore(frame, size_bytes(frame))
        last = frames[-1] if frames else None
        loaded_at = max(loaded_at, last.loaded_at if last else 0)
        self._committer.start(report.next_position, loaded_at, on_commit)
        self._syncs = self._own_syncs()
        self._thread.start()
        return report

    def _own_syncs(self) -> Syncs | None:
        if self._config.durability != "fsync":
            return None
        try:
            syncs = self._files.open_syncs()
        except OSError as error:
            _log.info("whoever writes the log waits for its sync, without io_uring: %s", error)
            return None
        _log.info("the log is synced by io_uring")
        return syncs

    async def append(self, events: Sequence[Row]) -> Receipt:
        """Commit events together and return once they are as durable as the settings ask.

        Raises Overloaded when the ring is full or the disk does not take them, and what
        `event.line_of` does; then none is stored.
        """
        assert events, "an append without events has no position to give"
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        last = Event._make(events[-1])
        received_at = last.timestamp if last.received_at is None else last.received_at
        self.submit(list(map(line_of, events)), received_at, partial(_resolve, future))
        return await future

    def submit(self, lines: Sequence[Line], received_at: int, settle: Settle) -> None:
        """Do what `append` does, and call settle on this event loop when it is done.

        lines: one for each event. received_at: when they were, in microseconds. settle: gets the
        receipt, or the error that `append` would raise later on; must not raise.
        Raises Overloaded when the ring is full; then settle is not called.
        """
        with self._door:
            if self._closed:
                raise Overloaded("The server is shutting down; send the event again.")
            failure = self._committer.failure
            if failure and self._config.durability == "memory":
                raise refusal(failure)
            # One after the other now, not when they are written: they are in the processor's cache.
            rows, payload = len(lines), b"\n".join(lines)
            if not self._ring.reserve(rows):
                raise self._ring_full()
            if self._group is None:
                # Once a turn: asking which loop runs is a system call (Python before 3.12).
                loop = asyncio.get_running_loop()
                self._group = Group(loop, self._clock.monotonic(), [])
                loop.call_soon(self._end_turn)
            self._group.appends.append(_make_append((payload, rows, received_at, settle)))
            self._group.rows += rows

    def _ring_full(self) -> Overloaded:
        self._telemetry.failures["ring_full"] += 1
        return Overloaded("Too many events wait to be written; send this one again later.")

    async def await_room(self, count: int, *, again: bool = False) -> None:
        """Return when it is worth while to submit so many events; see `room.Room.wait`.

        Raises Overloaded when that is not soon.
        """
        if not await self._room.wait(count, again=again):
            raise self._ring_full()

    def tail(self) -> tuple[Frame, ...]:
        """Return the committed frames that are held, oldest first.

        Take it before the store's snapshot and drop what that one's watermark covers: a flush in
        between then puts an event in both, never in neither.
        """
        return self._ring.tail()

    def release(self, watermark: int) -> None:
        """Let go of what parts hold now, in the ring and in the log.

        Not on the event loop's thread: it may wait for a write that is under way.
        """
        self._ring.release(watermark)
        with self._trimming:
            # Under load somebody nearly always has the turn, and there is always more in the log.
            if self._committer.is_all_in_parts(watermark):
                self._trim(watermark)
            self._committer.remove_trimmed(watermark)

    def roll(self, watermark: int) -> None:
        """Have the log go on in a new segment, so that the one until now can be let go of.

        A segment goes when all of it is in parts: `wal.first_position` says how far that is.
        """
        with self._trimming:
            self._trim(watermark, roll=True)
            self._committer.remove_trimmed(watermark)

    def _trim(self, watermark: int, *, roll: bool = False) -> None:
        with self._committer.turn:
            self._committer.trim(watermark, roll)

    def sync_removals(self) -> None:
        """Return once the segments that were removed stay so after a power loss; raises OSError."""
        self._wal.sync_removals()

    def close(self) -> None:
        """Refuse new events, settle those under way and stop the thread."""
        with self._door:
            first = not self._closed
            self._closed = True
            if first and self._thread.is_alive():
                self._hand_over()
                self._queue.put(None)
        self._room.close()
        # The loop may be the one that waits here, or be gone.
        if (loop := self._under_way) is not None:
            self._land(partial(_settle, loop))
        if self._thread.is_alive():
            self._thread.join()

    def _end_turn(self) -> None:
        """Commit what came in this turn of the loop, here or on the thread."""
        with self._door:
            group = self._group
            # Closing has handed it over; or it goes with the next sync, which `_synced` begins.
            if group is None or self._under_way is not None:
                return
            # The turn is taken before the door opens: closing waits for it.
            is_much = group.rows > LOOP_EVENTS_MAX and self._syncs is None
            if is_much or not self._may_write_here():
                self._hand_over()
                return
            self._group = None
        committer = self._committer
        is_under_way = False
        try:
            if self._syncs is None:
                committer.commit([group], _settle_all)
            elif committer.begin([group], _settle_all, self._syncs):
                self._await_sync(group.loop, self._syncs)
                is_under_way = True  # as it was just now: closing may land it at once
            took, failed = committer.took, committer.failure is not None
        finally:
            if not is_under_way:
                committer.turn.release()
        self._pace += (took - self._pace) / 8
        if self._pace > QUICK_SECONDS:
            self._pace = QUICK_SECONDS / 2
            self._loop_from = self._clock.monotonic() + AWAY_TIMES * took
        if failed:
            self._have_probed(group.loop)

    def _await_sync(self, loop: asyncio.AbstractEventLoop, syncs: Syncs) -> None:
        if self._watched is not loop:
            loop.add_reader(syncs.descriptor, self._synced)
            self._watched = loop
        self._under_way = loop

    def _synced(self) -> None:
        """Settle those whose sync is over, and commit what came meanwhile."""
        loop = self._under_way
        self._land(_settle_all)
        if loop is not None and self._committer.failure is not None:
            self._have_probed(loop)
        if self._group is not None:
            self._end_turn()

    def _land(self, tell: Tell) -> None:
        with self._landing:
            if self._under_way is None or self._syncs is None:
                return
            try:
                self._committer.end(tell, self._syncs)
            finally:
                self._under_way = None
                self._committer.turn.release()

    def _have_probed(self, loop: asyncio.AbstractEventLoop) -> None:
        self._queue.put(Group(loop, self._clock.monotonic(), []))

    def _may_write_here(self) -> bool:
        """Take the turn for the loop if the disk is quick, works and nobody else is at it."""
        return (
            self._committer.failure is None
            and self._clock.monotonic() >= self._loop_from
            and self._queue.empty()
            and self._committer.turn.acquire(blocking=False)
        )

    def _hand_over(self) -> None:
        if self._group is not None:
            self._queue.put(self._group)
            self._group = None

    @property
    def syncs_beside(self) -> bool:
        """Whether the kernel syncs the log beside the event loop, for those who measure."""
        return self._syncs is not None

    @property
    def failure(self) -> str | None:
        """Why the log does not take events just now; None when it does."""
        return self._committer.failure

    @property
    def ring(self) -> Ring:
        """The ring, for those who watch how full it is."""
        return self._ring

    @property
    def wal(self) -> Wal:
        """The log, for those who watch how large it is."""
        return self._wal

    # --- the buffer's thread, from here on ---

    def _run(self) -> None:
        committer = self._committer
        running, busy = True, False
        while running:
            try:
                first = self._queue.get(timeout=PROBE_SECONDS if committer.failure else None)
            except queue.Empty:
                with committer.turn:
                    committer.probe()
                continue
            if busy:
                time.sleep(GATHER_SECONDS)
            with committer.turn:
                groups, running = self._gather(first)
                busy = sum(len(group.appends) for group in groups) >= BUSY_APPENDS
                if groups:
                    committer.commit(groups, partial(_settle, groups[0].loop))
                    if self._loop_from == math.inf:
                        self._loop_from = self._clock.monotonic() + AWAY_TIMES * committer.took
        with committer.turn:
            committer.close()

    def _gather(self, item: Group | None) -> tuple[list[Group], bool]:
        """Take what waits in the queue: groups for one write, and whether to go on."""
        groups: list[Group] = []
        count = 0
        while item is not None:
            if item.appends:
                groups.append(item)
                count += item.rows
            if count >= GROUP_EVENTS_MAX:
                return groups, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return groups, True
        return groups, False


def _settle(loop: asyncio.AbstractEventLoop, settled: Settled) -> None:
    # A loop that is closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle_all, settled)


def _settle_all(settled: Settled) -> None:
    for settle, result in settled:
        settle(result)


def _resolve(future: asyncio.Future[Receipt], result: Receipt | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
