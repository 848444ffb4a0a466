"""The write-ahead log: segments of frames in one folder, appended to by one thread at a time.

A segment is named after the position its first frame has, in 20 digits, and holds frames alone,
with zeros behind them: the room of the next ones, so that a sync finds the file as long as before.
Invariants:
* A segment ends where the next one's name says. Frames of an older segment at or past that position
  were never acknowledged: their write or sync failed, their numbers were given again.
* Positions have no holes. A hole between what was read is exactly what was lost.
* Segments are removed oldest first, so that the first rule holds after a crash in between.
* A segment that holds acknowledged events has its name, of an empty file, in a folder beside the
  log: the last one would not be missed otherwise. The name comes after the first of them, and
  goes before the segment does. It is never synced: a power loss may take it, and costs no event.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mallard.buffer.frame import Damage, decode, scan
from mallard.errors import StorageError
from mallard.event import Frame
from mallard.files import Files
from mallard.uring import Syncs

SUFFIX = ".wal"
NAMES = "wal-names"  # beside the log's folder: who empties that one leaves this
# A segment grows by zeros as it gets longer, by this at most. A sync after a write over zeros waits
# half as long as one that must have the file's length noted too (0.13 : 0.2 ms alone; beside
# queries on all cores 1.1 : 1.4). Writes that are longer than the second grow it by themselves.
ROOM_BYTES = 1024 * 1024
ROOM_MAKER_BYTES = 64 * 1024


@dataclass(slots=True)
class LogReport:
    """What reading the log found.

    events: how many were read. torn_bytes: of writes that never finished and so were never
    acknowledged. damaged: (segment, damage) where bytes changed after they were written.
    missing: (first, last) positions, both inclusive, that are in no frame. gone: (segment, what
    became of it, position) of a last segment whose events from that position on were acknowledged
    and are not there; nothing says how many. unusable: sentences, each with a segment that is there
    and cannot be used as it is, and what to do. next_position: the first that was not given yet,
    as far as the log knows.
    """

    events: int = 0
    next_position: int = 1
    torn_bytes: int = 0
    damaged: list[tuple[str, Damage]] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    gone: list[tuple[str, str, int]] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong, but for positions that are missing."""
        return not (self.damaged or self.gone or self.unusable)


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
    names = folder.with_name(NAMES)
    named = segments(names, files)
    there = segments(folder, files)  # second, because a segment goes after its name
    found = sorted({*named, *there})
    expected = report.next_position = after + 1
    for index, (start, name) in enumerate(found):
        limit = found[index + 1][0] if index + 1 < len(found) else None
        # A segment's name says that every position before it was given, read or not.
        if start > expected:
            report.missing.append((expected, start - 1))
            expected = report.next_position = start
        try:
            data = _content(folder / name, files, last=limit is None)
        except OSError as error:
            report.unusable.append(_unreadable(name, error))
            continue
        torn_alone = True
        for number, item in enumerate(scan(data or b"")):
            torn_alone = torn_alone and isinstance(item, Damage) and item.torn
            if isinstance(item, Damage):
                if item.torn:
                    report.torn_bytes += item.length
                else:
                    report.damaged.append((name, item))
                continue
            header, payload = item
            first, last = header.first_position, header.first_position + header.rows - 1
            if not number and first != start:
                report.unusable.append(_renamed(name, first))
            if last < expected or (limit is not None and first >= limit):
                continue
            if first > expected:
                report.missing.append((expected, first - 1))
            expected = report.next_position = last + 1
            report.events += header.rows
            yield decode(header, payload)
        # Named before and after: else it was begun, or trimmed, between two looks.
        if torn_alone and limit is None and (start, name) in named and name in files.names(names):
            what = {None: "is missing", b"": "is empty"}.get(data, "holds no whole event")
            report.gone.append((name, what, expected))


def note_name(folder: Path, name: str, files: Files) -> None:
    """Have a segment be missed once it is gone; raises OSError."""
    files.close(files.create(folder.with_name(NAMES) / name))


def forget_name(folder: Path, name: str, files: Files) -> None:
    """Have a segment not be missed; raises OSError."""
    files.remove(folder.with_name(NAMES) / name)


def gone_text(name: str, what: str, first: int) -> str:
    """Say what became of a last segment that is in `LogReport.gone`."""
    return (
        f"wal/{name} {what}, and it held acknowledged events: those from position {first} on are "
        "in no part, and nothing says how many there were"
    )


def _content(path: Path, files: Files, *, last: bool) -> bytes | None:
    """Return a segment without the room behind its frames, none of which ends in a zero.

    last: another process may write to it meanwhile.
    """
    try:
        content = files.read(path).rstrip(b"\0")
        if last:
            # Of a write that overtook the reading, the end may be there and the beginning not: a
            # hole that never was. A write goes forward, so all before that end is there by now.
            content = files.read(path)[: len(content)].rstrip(b"\0")
    except FileNotFoundError:
        return None
    return content


def _unreadable(name: str, error: OSError) -> str:
    return (
        f"wal/{name} cannot be read ({error.strerror or error}). See to the disk; or, to go on "
        "without the events in it, move it away."
    )


def _renamed(name: str, first: int) -> str:
    return (
        f"wal/{name} begins with position {first}: it is wal/{segment_name(first)}, renamed, "
        "swapped or copied. Give it that name again; of two that are the same, move one away."
    )


class Wal:
    """Appends frames to the newest segment; used by one thread at a time.

    But `retire` and `remove_retired`, which one other thread at a time may use beside it.
    """

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
        self._retired: list[tuple[int, str]] = []  # before those: all in parts, not removed yet
        self._descriptor: int | None = None
        self._size = 0  # of the newest segment's frames
        self._length = 0  # and with the room behind them
        self._stray = False  # a failed append may have left frames that no segment ends yet
        self._unnamed: str | None = None  # the newest segment, until it would be missed

    def recover(self, after: int) -> tuple[list[Frame], LogReport]:
        """Return the frames past the watermark, and what was wrong with the log.

        Raises StorageError while a segment is there that cannot be used as it is: it may be all
        there is of some events, whose positions would be given again.
        """
        self._files.make_folder(self._folder)
        self._files.make_folder(self._folder.with_name(NAMES))
        report = LogReport()
        frames = list(read_log(self._folder, self._files, after, report))
        if report.unusable:
            raise StorageError(" ".join(report.unusable))
        self._damaged = {name for name, _ in report.damaged}
        self._segments = segments(self._folder, self._files)
        there = {name for _, name in self._segments}
        for _, name in segments(self._folder.with_name(NAMES), self._files):
            if name not in there:
                forget_name(self._folder, name, self._files)  # this report was its last
        return frames, report

    @property
    def first_position(self) -> int | None:
        """The position that the oldest segment begins with; None when there is no segment."""
        newer = self._segments[:1]  # looked at first: it may be retired meanwhile
        return next((first for first, _ in (*self._retired[:1], *newer)), None)

    @property
    def segment_count(self) -> int:
        """How many segments there are."""
        return len(self._retired) + len(self._segments)

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
            # Stray with a descriptor: a segment that `disown` could not begin wholly.
            if descriptor is None or self._stray or self._size >= self._segment_bytes:
                descriptor = self._begin(first_position)
            self._files.write(descriptor, data + self._room(len(data)), self._size)
            if sync and syncs is not None:
                self._files.begin_sync(descriptor, syncs)
            elif sync:
                self._files.sync(descriptor)
        except BaseException:  # whatever it was, what is in the file now must be disowned
            self._abandon()
            raise
        self._size += len(data)
        if syncs is None:
            self._note_name()

    def _room(self, count: int) -> bytes:
        """Return the zeros to write behind so many bytes."""
        end = self._size + count
        if end <= self._length:
            return b""
        room = min(self._size, ROOM_BYTES) if count <= ROOM_MAKER_BYTES else 0
        self._length = end + room
        return bytes(room)

    def end_sync(self, syncs: Syncs) -> None:
        """Return once what was appended last survives a power loss, or raise as `append` does."""
        try:
            self._files.end_sync(syncs)
        except BaseException:
            self._abandon()
            raise
        self._note_name()

    def disown(self, next_position: int) -> None:
        """Have what a failed append may have left in a file never be read; else do nothing.

        next_position: the one the next append begins with. Raises OSError while the disk fails;
        until it works again, a restart could take such events for acknowledged ones.
        """
        if self._stray:
            self._begin(next_position)

    def retire(self, watermark: int) -> None:
        """Let go of the segments before the newest whose every event is in parts.

        `remove_retired` removes them.
        """
        # Appends add to the end of the list, and go on meanwhile.
        while len(self._segments) > 1 and self._segments[1][0] <= watermark + 1:
            self._retired.append(self._segments[0])
            del self._segments[0]

    def trim(self, watermark: int, next_position: int) -> None:
        """Do what `retire` does, and let go of the newest segment too if all of it is in parts.

        next_position: the next to be given. Raises OSError; what could not be done is tried again
        the next time.
        """
        self.retire(watermark)
        if not self._segments or next_position > watermark + 1:
            return
        if self._size:
            self._close()
        if self._descriptor is not None:
            return
        first, name = self._segments[0]
        if first > watermark:
            # Nothing in it was acknowledged, and the next append may begin one of that name.
            self.remove_retired()
            self._remove(name)
        else:
            self._retired.append((first, name))
        del self._segments[0]

    def remove_retired(self) -> None:
        """Remove what was let go of, oldest first; raises OSError, the rest goes the next time.

        Appends may go on meanwhile: to remove a segment takes as long as twenty syncs.
        """
        while self._retired:
            self._remove(self._retired[0][1])
            del self._retired[0]

    def _remove(self, name: str) -> None:
        forget_name(self._folder, name, self._files)
        if name in self._damaged:
            self._set_aside(name)
        else:
            self._files.remove(self._folder / name)

    def sync_removals(self) -> None:
        """Return once the segments that were removed stay so after a power loss; raises OSError."""
        self._files.sync_folder(self._folder)

    def close(self) -> None:
        """Close the newest segment, which stays."""
        self._close()

    def _begin(self, first_position: int) -> int:
        self._close()
        name = segment_name(first_position)
        forget_name(self._folder, name, self._files)
        if name in self._damaged:
            self._set_aside(name)
        # A segment of the same name holds no acknowledged frame, or this position would be taken.
        descriptor = self._files.create(self._folder / name)
        self._descriptor, self._unnamed = descriptor, name
        self._size = self._length = 0
        self._files.sync_folder(self._folder)
        self._stray = False
        if not self._segments or self._segments[-1][0] != first_position:
            self._segments.append((first_position, name))
        return descriptor

    def _note_name(self) -> None:
        if self._unnamed and self._size:
            with contextlib.suppress(OSError):  # the next append does it
                note_name(self._folder, self._unnamed, self._files)
                self._unnamed = None

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
