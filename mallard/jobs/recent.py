"""Parts of level 0, written in a process beside the server's.

A flush of 8,000 events is 25 ms of processor time, and some of it needs Python's interpreter. In
the server's process it took 50 to 100 ms, in which one request in fifty waited for 13 ms or more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from mallard.clock import Clock
from mallard.event import Frame, to_table
from mallard.files import Files
from mallard.jobs.apart import Apart
from mallard.store.part import Derived, Part
from mallard.store.workshop import Workshop

# The process ends after so long without work: it takes as much memory as an idle server.
STAYS_SECONDS = 60.0


class RecentWriter:
    """Writes events of the buffer as parts, in one process that stays as long as there are many.

    One thread uses it; the process ends with it.
    """

    def __init__(self, data: Path, clock: Clock, held: Collection[int] = ()) -> None:
        """data: the data folder. held: descriptors that the process keeps open while it lives."""
        self._data = data
        self._clock = clock
        self._apart = Apart(held, stays=True)
        self._used_at: float | None = None  # None: there is no process

    def write(self, frames: Sequence[Frame]) -> tuple[Part, ...]:
        """Do what `Store.write_recent` does with the events of frames.

        Raises StorageError and OSError. What is left then is overwritten when these very frames are
        written again, and removed by the store's `tidy` otherwise.
        """
        try:
            positions, loaded_at, nodes, rows, payloads = zip(*frames, strict=True)
            lengths = list(map(len, payloads))
            sent = _Sent(self._data, positions, loaded_at, nodes, rows, lengths)
            return self._apart.call_with(_write, sent, payloads)
        finally:
            self._used_at = self._clock.monotonic()

    def rest(self) -> None:
        """End the process if there was nothing to do for long."""
        if self._used_at is not None and self._clock.monotonic() - self._used_at >= STAYS_SECONDS:
            self.end()

    def interrupt(self) -> None:
        """Kill the process; any thread may ask. What it was writing raises `Ended`."""
        self._apart.interrupt()

    def end(self) -> None:
        """End the process."""
        self._used_at = None
        self._apart.end()


class _Sent(NamedTuple):
    """The folder to write to, and frames by their columns, which are sooner sent than frames.

    lengths: of their payloads, in bytes.
    """

    data: Path
    first_positions: Sequence[int]
    loaded_at: Sequence[int]
    nodes: Sequence[int]
    rows: Sequence[int]
    lengths: Sequence[int]


class _Workshop(Workshop):
    """Leaves what it could not write: the server writes it again, and knows what must stay."""

    def discard(self, written: Iterable[Part | Derived]) -> None:
        pass


def _write(sent: _Sent, text: bytes) -> tuple[Part, ...]:
    """Write frames as parts; text: their payloads, one after the other."""
    ends = accumulate(sent.lengths)
    payloads = [text[end - size : end] for size, end in zip(sent.lengths, ends, strict=True)]
    columns = sent.first_positions, sent.loaded_at, sent.nodes, sent.rows, payloads
    frames = [Frame._make(values) for values in zip(*columns, strict=True)]
    return _Workshop(sent.data, Files()).write_recent(to_table(frames))
