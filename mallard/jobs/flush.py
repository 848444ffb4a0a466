"""Moves events from the buffer to parts: by number, by age and at shutdown, on one path."""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import partial

from mallard.buffer.buffer import Buffer
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.errors import StorageError
from mallard.event import Frame, to_table
from mallard.jobs.recent import RecentWriter
from mallard.store.part import Part
from mallard.store.store import Store
from mallard.telemetry import Telemetry

# Events in one publish: it bounds the memory a flush takes, whatever waits in the buffer. These
# take 180 MiB, and twice as many 240. With a third of them an event took 5 to 8 per cent more of
# the processor, and each publish waits for the disk, the manifest and the interpreter.
SLICE_EVENTS = 30_000
# From so many events on they are written beside the server; a flush of fewer holds nobody up for
# long, and a small site's server stays one process.
ROWS_BESIDE = 2_500
# A flusher rests so many times as long as it worked, but no longer than an interval of flushes, and
# not while the buffer fills up: a flush that comes later has more events, and costs less each.
REST_TIMES = 2

_log = logging.getLogger(__name__)


class Flusher:
    """A thread that flushes when enough events wait, or the oldest has waited long enough."""

    def __init__(
        self,
        config: BufferConfig,
        buffer: Buffer,
        store: Store,
        clock: Clock,
        telemetry: Telemetry,
        beside: RecentWriter | None = None,
    ) -> None:
        """beside: writes what is much; None: all is written here."""
        self._config = config
        self._buffer = buffer
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._beside = beside
        self._wake = threading.Event()
        self._hurry = threading.Event()  # no rest now
        self._stopping = False
        self._failure: str | None = None
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mallard-flush", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and flush what is left; what cannot be flushed stays in the log."""
        self._stopping = True
        self._wake.set()
        self._hurry.set()
        if self._beside:
            self._beside.interrupt()  # whatever has stopped it, the flush under way goes on here
        if self._thread.is_alive():
            self._thread.join()
        self._try()

    def notice_commit(self) -> None:
        """See whether enough events wait; called after each commit, so it must be short.

        Any thread may call it.
        """
        ring = self._buffer.ring
        if ring.events >= self._config.flush_events and not self._failure:
            self._wake.set()
        if ring.is_half_full:
            self._hurry.set()

    @property
    def failure(self) -> str | None:
        """Why the last flush failed; None when it did not."""
        return self._failure

    def flush(self) -> int:
        """Publish what the buffer holds now and return how many events; raises StorageError."""
        flushed = 0
        with self._one_at_a_time:
            left, watermark = deque(self._buffer.tail()), self._store.snapshot().watermark
            if left and left[0].last_position <= watermark:
                self._buffer.release(watermark)  # a commit that seemed to fail had happened
            while left and left[0].last_position <= watermark:
                left.popleft()
            # Taken out, and so let go of with the ring's: others fill their room meanwhile.
            while frames := _taken(left, SLICE_EVENTS):
                flushed += self._publish(frames)
        return flushed

    def _publish(self, frames: list[Frame]) -> int:
        """Make a part of frames, and return how many events it has."""
        started = self._clock.monotonic()
        rows, watermark = sum(frame.rows for frame in frames), frames[-1].last_position
        # A process would end with another thread that started it.
        if rows < ROWS_BESIDE or self._beside is None or threading.current_thread() != self._thread:
            self._store.publish(to_table(frames), watermark)
        else:
            write = partial(self._write_beside, self._beside, frames)
            self._store.publish_written(frames[0].first_position, watermark, write)
        self._buffer.release(watermark)
        self._telemetry.flush_seconds.observe(self._clock.monotonic() - started)
        return rows

    def _write_beside(self, beside: RecentWriter, frames: list[Frame]) -> tuple[Part, ...]:
        try:
            return beside.write(frames)
        except (StorageError, OSError) as error:
            # Whatever keeps the other process from it need not keep this one.
            _log.warning("the server writes a flush itself: %s", error)
            return self._store.write_recent(to_table(frames))

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._config.flush_interval_seconds)
            if self._beside:
                self._beside.rest()
            started = self._clock.monotonic()
            self._try()
            worked = self._clock.monotonic() - started
            # Commits during the flush saw the events it was about to take: no reason for another.
            self._wake.clear()
            self._hurry.clear()
            self.notice_commit()
            if not self._stopping:
                self._hurry.wait(min(REST_TIMES * worked, self._config.flush_interval_seconds))
        if self._beside:
            self._beside.end()

    def _try(self) -> None:
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001 - the top of a thread, which must go on
            self._telemetry.failures["flush"] += 1
            if not self._failure:
                ours = not isinstance(error, StorageError)
                _log.error("events stay in the log for now: %s", error, exc_info=ours)
            self._failure = str(error) or type(error).__name__
        else:
            if self._failure:
                _log.warning("flushing works again")
            self._failure = None


def _taken(frames: deque[Frame], most: int) -> list[Frame]:
    """Take the first frames, of at most so many events together; a frame is never cut."""
    taken: list[Frame] = []
    events = 0
    while frames and (not taken or events + frames[0].rows <= most):
        events += frames[0].rows
        taken.append(frames.popleft())
    return taken
