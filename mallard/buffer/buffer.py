"""Accepts events: one thread numbers them, writes them to the log and shows them in the ring.

Invariants:
* Positions are given in the step that makes them durable: no holes, none given twice.
* An append that fails gave no number away and shows nothing.
* Whatever is in the ring is in the log (with `durability = "memory"`, is about to be).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mallard.buffer.frame import HEADER_BYTES, encode
from mallard.buffer.ring import Ring
from mallard.buffer.wal import LogReport, Wal
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.errors import Overloaded
from mallard.event import Event, Frame, pack
from mallard.files import Files
from mallard.telemetry import Telemetry

GROUP_EVENTS_MAX = 5_000  # events in one write; beyond it waiting longer saves no syncs
# After a write for this many requests or more, the next one waits this long for company. A sync is
# so fast on some disks that else each would be for a handful, and each costs the processor more
# than an event does, for waking threads and handing them the interpreter. Who comes alone never
# waits. (With 64 connections: 100 us of processor time a request without it, 68 with; waiting 0.02
# or 0.2 ms instead made 5 and 10 per cent fewer requests a second, 1 ms a quarter fewer.)
BUSY_APPENDS = 4
GATHER_SECONDS = 0.0001
PROBE_SECONDS = 1.0  # how often a failed log is tried again when no request does it

_log = logging.getLogger(__name__)


class Receipt(NamedTuple):
    """What an append gives: the position of its first event, and when it was committed (µs)."""

    first_position: int
    loaded_at: int


Settle = Callable[[Receipt | Exception], None]


@dataclass(slots=True)
class _Append:
    events: tuple[Event, ...]
    settle: Settle
    loop: asyncio.AbstractEventLoop
    asked_at: float
    holds_room: bool = True  # in the ring, until its frame takes it over or it is refused


class _Trim(NamedTuple):
    watermark: int
    roll: bool = False  # the newest segment ends here, whatever its size


_Settled = tuple[Settle, Receipt | Exception]


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
        self._node = node
        self._wal = Wal(self._folder, files, config.segment_bytes, data / "quarantine")
        self._ring = Ring(config.capacity_events, config.capacity_bytes)
        self._queue: queue.SimpleQueue[list[_Append] | _Trim | None] = queue.SimpleQueue()
        # What came in one turn of the event loop goes to the thread at once. One by one, each would
        # wake it, and the two would hand the interpreter to and fro instead of working.
        self._gathered: list[_Append] = []
        self._thread = threading.Thread(target=self._run, name="mallard-log", daemon=True)
        self._next_position = 1
        self._loaded_at = 0
        self._failure: str | None = None
        self._closed = False
        self._door = threading.Lock()  # so that nothing comes into the queue after its end
        self._on_commit: Callable[[], None] = lambda: None

    def start(self, watermark: int, loaded_at: int, on_commit: Callable[[], None]) -> LogReport:
        """Take back from the log what parts do not hold, then accept events.

        watermark: the last position in parts. loaded_at: the latest commit time in parts, in
        microseconds. on_commit: called by the buffer's thread after each commit; must be short.
        """
        frames, report = self._wal.recover(watermark)
        for frame in frames:
            self._ring.restore(frame, HEADER_BYTES + len(frame.payload))
        last = frames[-1] if frames else None
        self._next_position = report.next_position
        self._loaded_at = max(loaded_at, last.loaded_at if last else 0)
        self._on_commit = on_commit
        self._thread.start()
        return report

    async def append(self, events: Sequence[Event]) -> Receipt:
        """Commit events together and return once they are as durable as the settings ask.

        Raises Overloaded when the ring is full or the disk does not take them; then none is stored.
        """
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.submit(events, partial(_resolve, future))
        return await future

    def submit(self, events: Sequence[Event], settle: Settle) -> None:
        """Do what `append` does, and call settle on this event loop when it is done.

        settle: gets the receipt, or the error that `append` would raise later on; must not raise.
        Raises Overloaded when the ring is full; then settle is not called.
        """
        rows = tuple(events)
        assert rows, "an append without events has no position to give"
        loop = asyncio.get_running_loop()
        with self._door:
            if self._closed:
                raise Overloaded("The server is shutting down; send the event again.")
            if self._failure and self._config.durability == "memory":
                raise _refusal(self._failure)
            if not self._ring.reserve(len(rows)):
                self._telemetry.failures["ring_full"] += 1
                raise Overloaded("Too many events wait to be written; send this one again later.")
            if not self._gathered:
                loop.call_soon(self._hand_over)
            self._gathered.append(_Append(rows, settle, loop, self._clock.monotonic()))

    def tail(self) -> tuple[Frame, ...]:
        """Return the committed frames that are held, oldest first.

        Take it before the store's snapshot and drop what that one's watermark covers: a flush in
        between then puts an event in both, never in neither.
        """
        return self._ring.tail()

    def release(self, watermark: int) -> None:
        """Let go of what parts hold now: from the ring at once, from the log soon."""
        self._ring.release(watermark)
        if self._thread.is_alive():
            self._queue.put(_Trim(watermark))
        else:
            self._trim(_Trim(watermark))

    def roll(self, watermark: int) -> None:
        """Have the log go on in a new segment, so that the one until now can be let go of, soon.

        A segment goes when all of it is in parts: `wal.first_position` says how far that is.
        """
        if self._thread.is_alive():
            self._queue.put(_Trim(watermark, roll=True))
        else:
            self._trim(_Trim(watermark, roll=True))

    def close(self) -> None:
        """Refuse new events, settle those under way and stop the thread."""
        with self._door:
            first = not self._closed
            self._closed = True
            if first and self._thread.is_alive():
                self._put_gathered()
                self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _hand_over(self) -> None:
        with self._door:
            self._put_gathered()

    def _put_gathered(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    @property
    def failure(self) -> str | None:
        """Why the log does not take events just now; None when it does."""
        return self._failure

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
        running, busy = True, False
        while running:
            try:
                first = self._queue.get(timeout=PROBE_SECONDS if self._failure else None)
            except queue.Empty:
                self._probe()
                continue
            if busy:
                time.sleep(GATHER_SECONDS)
            appends, trim, running = self._gather(first)
            busy = len(appends) >= BUSY_APPENDS
            if appends:
                self._commit_or_refuse(appends)
            if trim is not None:
                self._trim(trim)
        try:
            self._wal.close()
        except OSError as error:  # what was acknowledged is synced already
            _log.error("the log could not be closed: %s", _reason(error))

    def _gather(
        self, item: list[_Append] | _Trim | None
    ) -> tuple[list[_Append], _Trim | None, bool]:
        """Take what waits in the queue: appends for one write, the last trim, whether to go on."""
        appends: list[_Append] = []
        trim: _Trim | None = None
        count = 0
        while item is not None:
            if isinstance(item, _Trim):
                trim = _Trim(item.watermark, item.roll or (trim is not None and trim.roll))
            else:
                appends += item
                count += sum(len(append.events) for append in item)
            if count >= GROUP_EVENTS_MAX:
                return appends, trim, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return appends, trim, True
        return appends, trim, False

    def _commit_or_refuse(self, appends: list[_Append]) -> None:
        """Commit; whatever goes wrong, nobody waits for an answer that never comes."""
        try:
            self._commit(appends)
        except Exception as error:  # noqa: BLE001 - the top of a thread, which must go on
            _log.exception("events were refused because of a fault in Mallard")
            self._telemetry.failures["append"] += 1
            self._give_room_back(appends)
            _settle(appends[0].loop, [(append.settle, error) for append in appends])

    def _commit(self, appends: list[_Append]) -> None:
        settled: list[_Settled] = []
        frames: list[tuple[Frame, int]] = []
        data: list[bytes] = []
        taken: list[_Append] = []
        position = self._next_position
        loaded_at = max(self._clock.now_us(), self._loaded_at)
        for append in appends:
            try:
                payload = pack(append.events)
            except (TypeError, ValueError) as error:
                # What cannot be written must not take the others along.
                self._give_room_back([append])
                settled.append((append.settle, error))
                continue
            rows = len(append.events)
            frame = Frame._make((position, loaded_at, self._node, rows, payload))
            encoded = encode(frame)
            data.append(encoded)
            frames.append((frame, len(encoded)))
            taken.append(append)
            settled.append((append.settle, Receipt(position, loaded_at)))
            position += rows
        loop = appends[0].loop
        if frames:
            early = self._config.durability == "memory"
            if early:
                self._show(taken, frames, position, loaded_at)
                _settle(loop, settled)
            try:
                self._write(b"".join(data), frames[0][0].first_position)
            except OSError as error:
                self._fail(error)
                if not early:
                    self._give_room_back(taken)
                    _settle(loop, [(append.settle, _refusal(_reason(error))) for append in appends])
                return
            if early:
                return
            self._show(taken, frames, position, loaded_at)
            now = self._clock.monotonic()
            for append in taken:
                self._telemetry.append_seconds.observe(now - append.asked_at)
        _settle(loop, settled)

    def _write(self, data: bytes, first_position: int) -> None:
        if self._files.free_bytes(self._folder) < self._config.free_bytes_min:
            raise OSError(28, "the disk is nearly full; the rest is kept for flushing")
        started = self._clock.monotonic()
        self._wal.append(data, first_position, sync=self._config.durability == "fsync")
        self._telemetry.sync_seconds.observe(self._clock.monotonic() - started)
        if self._failure:
            _log.warning("the log takes events again")
            self._failure = None

    def _give_room_back(self, appends: list[_Append]) -> None:
        for append in appends:
            if append.holds_room:
                append.holds_room = False
                self._ring.cancel(len(append.events))

    def _show(
        self,
        appends: list[_Append],
        frames: list[tuple[Frame, int]],
        position: int,
        loaded_at: int,
    ) -> None:
        self._next_position = position
        self._loaded_at = loaded_at
        for append in appends:
            append.holds_room = False
        self._ring.publish(frames)
        self._on_commit()

    def _fail(self, error: OSError) -> None:
        self._telemetry.failures["append"] += 1
        if not self._failure:
            _log.error("the log takes no events: %s", _reason(error))
        self._failure = _reason(error)
        with contextlib.suppress(OSError):  # the next append, or probe, does it otherwise
            self._wal.disown(self._next_position)

    def _probe(self) -> None:
        """See whether a failed log works again: nobody may ask while readiness is red."""
        try:
            self._write(b"", self._next_position)
        except OSError as error:
            self._failure = _reason(error)

    def _trim(self, trim: _Trim) -> None:
        try:
            if trim.roll:
                self._wal.close()
            self._wal.trim(trim.watermark, self._next_position)
        except OSError as error:
            self._telemetry.failures["trim"] += 1
            _log.error("old log segments stay for now: %s", _reason(error))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _refusal(reason: str) -> Overloaded:
    return Overloaded(f"The event could not be written to disk ({reason}); send it again later.")


def _settle(loop: asyncio.AbstractEventLoop, settled: list[_Settled]) -> None:
    # A loop that is closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle_all, settled)


def _settle_all(settled: list[_Settled]) -> None:
    for settle, result in settled:
        settle(result)


def _resolve(future: asyncio.Future[Receipt], result: Receipt | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
