"""Numbers events, writes them to the log and shows them in the ring: one group at a time.

Whoever holds `turn` may call the methods, on whatever thread; nobody else may, but
`is_all_in_parts` and `remove_trimmed`.
Invariants:
* Positions are given in the step that makes them durable: no holes, none given twice.
* An append that fails gave no number away and shows nothing.
* `loaded_at` is when an append was committed, to five milliseconds, and never goes back.
* Whatever is in the ring is in the log (with `durability = "memory"`, is about to be).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mallard.buffer.frame import encode, size_bytes
from mallard.buffer.ring import Ring
from mallard.buffer.wal import Wal
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.errors import Overloaded
from mallard.event import Frame
from mallard.files import Files
from mallard.telemetry import Telemetry
from mallard.uring import Syncs

# A commit that follows the receipt so closely has its time: parts then keep one instant and not
# two, which is a twentieth of their bytes. The sync that follows can take longer than that.
AT_ONCE_US = 5_000
# Events of requests that came in the same millisecond and are in one frame. A frame's own costs,
# from its checksums to its place in the ring, are then shared; damage to one takes no more along.
JOINED_EVENTS_MAX = 32
MICROSECONDS_PER_MS = 1_000

_log = logging.getLogger(__name__)


class Receipt(NamedTuple):
    """What an append gives: the position of its first event, and when it was committed (µs)."""

    first_position: int
    loaded_at: int


_make_receipt = Receipt._make
Settle = Callable[[Receipt | Exception], None]
Settled = list[tuple[Settle, Receipt | Exception]]
Tell = Callable[[Settled], None]


class Append(NamedTuple):
    """What one request wants committed, when it was received (µs), and who is to be told.

    payload: a line for each of so many rows, with an end of a line between two.
    """

    payload: bytes
    rows: int
    received_at: int
    settle: Settle


@dataclass(slots=True)
class Group:
    """What came in one turn of an event loop.

    asked_at: when the first of it came, as `Clock.monotonic` counts. rows: how many events.
    """

    loop: asyncio.AbstractEventLoop
    asked_at: float
    appends: list[Append]
    rows: int = 0


class _Written(NamedTuple):
    """Groups on their way to the disk, and what is to be shown and told once they are there."""

    groups: list[Group]
    appends: list[Append]
    frames: list[tuple[Frame, int]]
    position: int  # the next after them
    loaded_at: int
    settled: Settled


class Committer:
    """Commits groups, and looks after the log when the disk fails."""

    def __init__(
        self,
        config: BufferConfig,
        folder: Path,
        files: Files,
        clock: Clock,
        telemetry: Telemetry,
        node: int,
        wal: Wal,
        ring: Ring,
    ) -> None:
        self.turn = threading.Lock()
        self.failure: str | None = None  # why the log does not take events just now
        self.took = 0.0  # seconds of the last write, its sync included if that was waited for
        self._shown = False  # whether the group under way is in the ring
        self._written: _Written | None = None  # what `begin` left to `end`
        self._started = 0.0
        self._config = config
        self._folder = folder
        self._files = files
        self._clock = clock
        self._telemetry = telemetry
        self._node = node
        self._wal = wal
        self._ring = ring
        self._next_position = 1
        self._loaded_at = 0
        self._on_commit: Callable[[], None] = lambda: None

    def start(self, next_position: int, loaded_at: int, on_commit: Callable[[], None]) -> None:
        """Go on from a position and a commit time; on_commit: called after each commit."""
        self._next_position = next_position
        self._loaded_at = loaded_at
        self._on_commit = on_commit

    def commit(self, groups: list[Group], tell: Tell) -> None:
        """Commit all that groups hold in one write.

        tell: gets what becomes of each append, in one call or several. Whatever goes wrong, nobody
        waits for an answer that never comes.
        """
        self._commit(groups, tell, None)

    def begin(self, groups: list[Group], tell: Tell, syncs: Syncs) -> bool:
        """Do what `commit` does, but leave the sync under way; return whether `end` is next.

        Only with `durability = "fsync"`. When something went wrong, tell was called and there is
        nothing to end.
        """
        self._commit(groups, tell, syncs)
        return self._written is not None

    def end(self, tell: Tell, syncs: Syncs) -> None:
        """Do the rest of what `begin` began; waits for the sync where it is not over."""
        written, self._written = self._written, None
        assert written is not None, "nothing was begun"
        with self._answering(written.appends, tell):
            try:
                self._wal.end_sync(syncs)
            except OSError as error:
                self._refuse(written, error, tell)
                return
            self._note_sync()
            self._finish(written, tell)

    def _commit(self, groups: list[Group], tell: Tell, syncs: Syncs | None) -> None:
        appends = [append for group in groups for append in group.appends]
        self._shown = False
        with self._answering(appends, tell):
            self._number_and_write(groups, appends, tell, syncs)

    @contextlib.contextmanager
    def _answering(self, appends: list[Append], tell: Tell) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the top of a thread, which must go on
            _log.exception("events were refused because of a fault in Mallard")
            self._telemetry.failures["append"] += 1
            self._give_room_back(appends)
            tell([(append.settle, error) for append in appends])

    def _number_and_write(
        self, groups: list[Group], appends: list[Append], tell: Tell, syncs: Syncs | None
    ) -> None:
        settled: Settled = []
        frames: list[tuple[Frame, int]] = []
        data: list[bytes] = []
        first = position = self._next_position
        loaded_at = self._loaded_at
        for at, run in _runs(appends, loaded_at, self._clock.now_us()):
            loaded_at = at
            start = position
            payloads: list[bytes] = []
            for payload, rows, _, settle in run:
                settled.append((settle, _make_receipt((position, loaded_at))))
                position += rows
                payloads.append(payload)
            rows = position - start
            frame = Frame._make((start, loaded_at, self._node, rows, b"\n".join(payloads)))
            data += encode(frame)
            frames.append((frame, size_bytes(frame)))
        written = _Written(groups, appends, frames, position, loaded_at, settled)
        early = self._config.durability == "memory"
        if early:
            self._show(frames, position, loaded_at)
            tell(settled)
        try:
            self._write(b"".join(data), first, syncs)
        except OSError as error:
            if early:
                self._fail(error)
            else:
                self._refuse(written, error, tell)
            return
        if syncs is not None:
            self._written = written
        elif not early:
            self._finish(written, tell)

    def _finish(self, written: _Written, tell: Tell) -> None:
        self._show(written.frames, written.position, written.loaded_at)
        now = self._clock.monotonic()
        for group in written.groups:
            self._telemetry.append_seconds.observe(now - group.asked_at, len(group.appends))
        tell(written.settled)

    def _refuse(self, written: _Written, error: OSError, tell: Tell) -> None:
        self._fail(error)
        self._give_room_back(written.appends)
        tell([(append.settle, refusal(_reason(error))) for append in written.appends])

    def _write(self, data: bytes, first_position: int, syncs: Syncs | None = None) -> None:
        started = self._started = self._clock.monotonic()
        try:
            if self._files.free_bytes(self._folder) < self._config.free_bytes_min:
                raise OSError(28, "the disk is nearly full; the rest is kept for flushing")
            sync = self._config.durability == "fsync"
            self._wal.append(data, first_position, sync=sync, syncs=syncs)
        finally:
            self.took = self._clock.monotonic() - started
        if syncs is None:
            self._note_sync()

    def _note_sync(self) -> None:
        self._telemetry.sync_seconds.observe(self._clock.monotonic() - self._started)
        if self.failure:
            _log.warning("the log takes events again")
            self.failure = None

    def _give_room_back(self, appends: list[Append]) -> None:
        if not self._shown:  # from then on it is the frames'
            self._ring.cancel(sum(append.rows for append in appends))

    def _show(self, frames: list[tuple[Frame, int]], position: int, loaded_at: int) -> None:
        self._next_position = position
        self._loaded_at = loaded_at
        self._shown = True
        self._ring.publish(frames)
        self._on_commit()

    def _fail(self, error: OSError) -> None:
        self._telemetry.failures["append"] += 1
        if not self.failure:
            _log.error("the log takes no events: %s", _reason(error))
        self.failure = _reason(error)
        with contextlib.suppress(OSError):  # the next append, or probe, does it otherwise
            self._wal.disown(self._next_position)

    def probe(self) -> None:
        """See whether a failed log works again: nobody may ask while readiness is red."""
        try:
            self._write(b"", self._next_position)
        except OSError as error:
            self.failure = _reason(error)

    def is_all_in_parts(self, watermark: int) -> bool:
        """Return whether parts up to a position hold all events; any thread may ask.

        Without the turn, what is there a moment later may be more.
        """
        return self._next_position == watermark + 1

    def trim(self, watermark: int, roll: bool) -> None:
        """Let go of the segments that parts cover, the newest too.

        roll: the newest segment ends here, whatever its size.
        """
        with self._trimming():
            if roll:
                self._wal.close()
            self._wal.trim(watermark, self._next_position)

    def remove_trimmed(self, watermark: int) -> None:
        """Remove the segments that parts cover, but for a newest that `trim` has not let go of.

        What cannot be removed stays for the next time. One thread at a time may call it, and needs
        no turn.
        """
        with self._trimming():
            self._wal.retire(watermark)
            self._wal.remove_retired()

    @contextlib.contextmanager
    def _trimming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._telemetry.failures["trim"] += 1
            _log.error("old log segments stay for now: %s", _reason(error))

    def close(self) -> None:
        """Close the log."""
        try:
            self._wal.close()
        except OSError as error:  # what was acknowledged is synced already
            _log.error("the log could not be closed: %s", _reason(error))


def _runs(appends: list[Append], loaded_at: int, now_us: int) -> Iterator[tuple[int, list[Append]]]:
    """Yield what goes in each frame, and when it is loaded. loaded_at: of the frame before."""
    run: list[Append] = []
    rows = 0
    for append in appends:
        at = max(loaded_at, _commit_time(append.received_at, now_us))
        count = append.rows
        if run and (at != loaded_at or rows + count > JOINED_EVENTS_MAX):
            yield loaded_at, run
            run, rows = [], 0
        loaded_at = at
        rows += count
        run.append(append)
    yield loaded_at, run


def _commit_time(received_at: int, now_us: int) -> int:
    """Return the `loaded_at` of an append."""
    if 0 <= now_us - received_at < AT_ONCE_US:
        return received_at
    return now_us - now_us % MICROSECONDS_PER_MS


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def refusal(reason: str) -> Overloaded:
    """Return what an append is refused with when the disk does not take it."""
    return Overloaded(f"The event could not be written to disk ({reason}); send it again later.")
