"""What is committed and not yet in Parquet, in memory and in order of position, within bounds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from mallard.event import Frame


class Ring:
    """Frames between the watermark and now.

    Room is reserved before an event is written and given back when it is in parts or was refused,
    so that what waits for the disk counts too. Any thread may call any method.
    """

    def __init__(self, capacity_events: int, capacity_bytes: int) -> None:
        self.capacity_events = capacity_events
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._frames: deque[tuple[Frame, int]] = deque()
        self._reserved_events = 0
        self._committed_events = 0
        self._bytes = 0
        self._on_room: Callable[[], None] = lambda: None

    def reserve(self, count: int) -> bool:
        """Take room for events about to be written, or return False when there is none."""
        with self._lock:
            full = self._reserved_events + count > self.capacity_events
            if full or self._bytes >= self._capacity_bytes:
                return False
            self._reserved_events += count
            return True

    def cancel(self, count: int) -> None:
        """Give back room for events that were not written after all."""
        with self._lock:
            self._reserved_events -= count
        self._on_room()

    def tell(self, on_room: Callable[[], None]) -> None:
        """Have on_room called whenever there is more room, on any thread; it must be short."""
        self._on_room = on_room

    def restore(self, frame: Frame, size_bytes: int) -> None:
        """Hold a frame that the log gave back at start-up, whether or not there is room."""
        with self._lock:
            self._reserved_events += frame.rows
            self._hold(frame, size_bytes)

    def publish(self, frames: list[tuple[Frame, int]]) -> None:
        """Show frames, each with its size in log bytes, whose room is reserved."""
        with self._lock:
            for frame, size_bytes in frames:
                self._hold(frame, size_bytes)

    def release(self, watermark: int) -> None:
        """Let go of the frames that parts hold up to and including a position."""
        with self._lock:
            while self._frames and self._frames[0][0].last_position <= watermark:
                frame, size_bytes = self._frames.popleft()
                self._reserved_events -= frame.rows
                self._committed_events -= frame.rows
                self._bytes -= size_bytes
        self._on_room()

    def tail(self) -> tuple[Frame, ...]:
        """Return every frame that is held, oldest first."""
        with self._lock:
            return tuple(frame for frame, _ in self._frames)

    @property
    def free_events(self) -> int:
        """How many events would be taken just now."""
        with self._lock:
            if self._bytes >= self._capacity_bytes:
                return 0
            return self.capacity_events - self._reserved_events

    @property
    def is_half_full(self) -> bool:
        """Whether the held events take half of the room, by number or by size."""
        events, size = self._committed_events, self._bytes
        return 2 * events >= self.capacity_events or 2 * size >= self._capacity_bytes

    @property
    def events(self) -> int:
        """How many committed events are held."""
        return self._committed_events

    @property
    def size_bytes(self) -> int:
        """How many log bytes the held events took."""
        return self._bytes

    def _hold(self, frame: Frame, size_bytes: int) -> None:
        self._frames.append((frame, size_bytes))
        self._committed_events += frame.rows
        self._bytes += size_bytes
