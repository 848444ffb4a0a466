"""The write-ahead log: segments of frames in one folder, appended to by one thread at a time.

A segment is named after the position its first frame has, in 20 digits, and holds frames alone.
Invariants:
* A segment ends where the next one's name says. Frames of an older segment at or past that position
  were never acknowledged: their write or sync failed, their numbers were given again.
* Positions have no holes. A hole between what was read is exactly what was lost.
* Segments are removed oldest first, so that the first rule holds after a crash in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mallard.buffer.frame import Damage, decode, scan
from mallard.event import Frame
from mallard.files import Files
from mallard.uring import Syncs

SUFFIX = ".wal"


@dataclass(slots=True)
class LogReport:
    """What reading the log found.

    events: how many were read. torn_bytes: of writes that never finished and so were never
    acknowledged. damaged: (segment, damage) where bytes changed after they were written.
    missing: (first, last) positions, both inclusive, that are in no frame. next_position: the
    first that was not given yet, as far as the log knows.
    """

    events: int = 0
    next_position: int = 1
    torn_bytes: int = 0
    damaged: list[tuple[str, Damage]] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)


def segment_name(first_position: int) -> str:
    """Return the file name of the segment that begins at a position."""
    return f"{first_position:020d}{SUFFIX}"


def segments(folder: Path, files: Files) -> list[tuple[int, str]]:
    """Return (first position, file name) of each segment, oldest first."""
    return [
        (int(name.removesuffix(SUFFIX)), name)
        for name in files.names(folder)
        if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdecimal()
    ]


def first_logged(data: Path, files: Files) -> float:
    """Return the first position that a data folder's log has; infinite without a segment."""
    return next((first for first, _ in segments(data / "wal", files)), math.inf)


def read_log(folder: Path, files: Files, after: int, report: LogReport) -> Iterator[Frame]:
    """Yield the acknowledged frames past a position in order, noting in report what is wrong.

    after: the watermark; what it covers is in parts, so its loss from the log is none. A segment
    that vanishes while reading was covered by a newer watermark: the reader takes its snapshot of
    the store afterwards.
    """
    found = segments(folder, files)
    expected = report.next_position = after + 1
    for index, (start, name) in enumerate(found):
        limit = found[index + 1][0] if index + 1 < len(found) else None
        # A segment's name says that every position before it was given, read or not.
        if start > expected:
            report.missing.append((expected, start - 1))
            expected = report.next_position = start
        try:
            data = files.read(folder / name)
        except FileNotFoundError:
            continue
        for item in scan(data):
            if isinstance(item, Damage):
                if item.torn:
                    report.torn_bytes += item.length
                else:
                    report.damaged.append((name, item))
                continue
            header, payload = item
            first, last = header.first_position, header.first_position + header.rows - 1
            if last < expected or (limit is not None and first >= limit):
                continue
            if first > expected:
                report.missing.append((expected, first - 1))
            expected = report.next_position = last + 1
            report.events += header.rows
            yield decode(header, payload)


class Wal:
    """Appends frames to the newest segment; used by one thread at a time."""

    def __init__(self, folder: Path, files: Files, segment_bytes: int, quarantine: Path) -> None:
        """Open a folder of segments for appending.

        segment_bytes: a segment past this size is closed and another begun. quarantine: where
        damaged segments go when their events no longer need them, for a person to look at.
        """
        self._folder = folder
        self._files = files
        self._segment_bytes = segment_bytes
        self._quarantine = quarantine
        self._damaged: set[str] = set()
        self._segments: list[tuple[int, str]] = []
        self._descriptor: int | None = None
        self._size = 0
        self._stray = False  # a failed append may have left frames that no segment ends yet

    def recover(self, after: int) -> tuple[list[Frame], LogReport]:
        """Return the frames past the watermark, and what was wrong with the log."""
        self._files.make_folder(self._folder)
        report = LogReport()
        frames = list(read_log(self._folder, self._files, after, report))
        self._damaged = {name for name, _ in report.damaged}
        self._segments = segments(self._folder, self._files)
        return frames, report

    @property
    def first_position(self) -> int | None:
        """The position that the oldest segment begins with; None when there is no segment."""
        return next((first for first, _ in self._segments), None)

    @property
    def segment_count(self) -> int:
        """How many segments there are."""
        return len(self._segments)

    def append(
        self, data: bytes, first_position: int, *, sync: bool, syncs: Syncs | None = None
    ) -> None:
        """Write encoded frames; with sync, return once they survive a power loss.

        With syncs too, that is only begun: `end_sync` is next, before anything else here.

        Raises OSError, after which nothing of data counts: `disown`, or else the next append,
        begins a segment at the same position, and what the failed one left is not read. A failed
        sync is never tried again on the same file, because the kernel may have dropped the
        pages and would call the second try a success.
        """
        try:
            descriptor = self._descriptor
            if descriptor is None or self._size >= self._segment_bytes:
                descriptor = self._begin(first_position)
            self._files.write(descriptor, data)
            if sync and syncs is not None:
                self._files.begin_sync(descriptor, syncs)
            elif sync:
                self._files.sync(descriptor)
        except BaseException:  # whatever it was, what is in the file now must be disowned
            self._abandon()
            raise
        self._size += len(data)

    def end_sync(self, syncs: Syncs) -> None:
        """Return once what was appended last survives a power loss, or raise as `append` does."""
        try:
            self._files.end_sync(syncs)
        except BaseException:
            self._abandon()
            raise

    def disown(self, next_position: int) -> None:
        """Have what a failed append may have left in a file never be read; else do nothing.

        next_position: the one the next append begins with. Raises OSError while the disk fails;
        until it works again, a restart could take such events for acknowledged ones.
        """
        if self._stray:
            self._begin(next_position)

    def trim(self, watermark: int, next_position: int) -> None:
        """Remove the segments whose every event is in parts; next_position is the next to be given.

        Raises OSError; the segments that are left are tried again the next time.
        """
        if self._segments and self._size and next_position == watermark + 1:
            self._close()  # everything in the newest segment is in parts too
        while self._segments:
            end = self._segments[1][0] if len(self._segments) > 1 else next_position
            if end > watermark + 1 or (len(self._segments) == 1 and self._descriptor is not None):
                return
            _, name = self._segments[0]
            if name in self._damaged:
                self._set_aside(name)
            else:
                self._files.remove(self._folder / name)
            del self._segments[0]

    def sync_removals(self) -> None:
        """Return once the segments that were removed stay so after a power loss; raises OSError."""
        self._files.sync_folder(self._folder)

    def close(self) -> None:
        """Close the newest segment, which stays."""
        self._close()

    def _begin(self, first_position: int) -> int:
        self._close()
        name = segment_name(first_position)
        if name in self._damaged:
            self._set_aside(name)
        # A segment of the same name holds no acknowledged frame, or this position would be taken.
        descriptor = self._files.create(self._folder / name)
        self._descriptor = descriptor
        self._size = 0
        self._files.sync_folder(self._folder)
        self._stray = False
        if not self._segments or self._segments[-1][0] != first_position:
            self._segments.append((first_position, name))
        return descriptor

    def _set_aside(self, name: str) -> None:
        self._files.set_aside(self._folder / name, self._quarantine)
        self._damaged.discard(name)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._size = 0
            self._files.close(descriptor)

    def _abandon(self) -> None:
        self._stray = True
        try:
            self._close()
        except OSError:
            self._descriptor = None  # closing failed too; the segment is disowned all the same
