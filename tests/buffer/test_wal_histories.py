"""Random lives of a log, beside a dictionary that says what was acknowledged."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from mallard.buffer.frame import encode
from mallard.buffer.wal import Wal
from mallard.event import Event, Frame
from mallard.files import Files


class Failing(Files):
    """Real files; the next write stops after `cut` bytes, or the next sync or removal fails."""

    def __init__(self) -> None:
        self.cut: int | None = None
        self.fail = ""

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        if self.cut is None:
            return super().write(descriptor, data, at)
        super().write(descriptor, data[: self.cut], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        if self.fail == "sync":
            raise OSError(errno.EIO, "Input/output error")

    def remove(self, path: Path) -> None:
        if self.fail == "remove":
            raise OSError(errno.EIO, "Input/output error")
        super().remove(path)


class LogMachine(RuleBasedStateMachine):
    """Appends that work and fail, trims and restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.files = Failing()
        self.acknowledged: list[Frame] = []
        self.refused: list[Frame] = []
        self.next = 1
        self.watermark = 0
        self.number = 0
        self._open()

    def teardown(self) -> None:
        self.wal.close()
        self._folder.cleanup()

    def _open(self) -> tuple[list[Frame], int]:
        folder = Path(self._folder.name)
        self.wal = Wal(folder / "wal", self.files, 700, folder / "quarantine")
        frames, report = self.wal.recover(self.watermark)
        assert report.missing == []
        assert report.damaged == []
        return frames, report.next_position

    def _append(self, counts: list[int]) -> list[Frame]:
        frames, position = [], self.next
        for count in counts:
            self.number += 1
            events = (Event("a.example", 1, f"e{self.number}"),) * count
            frames.append(Frame(position, position, 0, events))
            position += count
        data = b"".join(piece for frame in frames for piece in encode(frame))
        try:
            self.wal.append(data, self.next, sync=True)
        except OSError:
            self.refused = frames
            return []
        self.refused = []
        self.acknowledged += frames
        self.next = position
        return frames

    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def append(self, counts: list[int]) -> None:
        assert self._append(counts)

    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=3), cut=st.integers(0, 2_000))
    def fail_in_the_write(self, counts: list[int], cut: int) -> None:
        self.files.cut = cut
        assert not self._append(counts)
        self.files.cut = None

    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def fail_in_the_sync(self, counts: list[int]) -> None:
        self.files.fail = "sync"
        assert not self._append(counts)
        self.files.fail = ""

    @rule(frames=st.integers(1, 6), removes=st.booleans())
    def trim(self, frames: int, removes: bool) -> None:
        held = [f for f in self.acknowledged if f.last_position > self.watermark][:frames]
        if held:
            self.watermark = held[-1].last_position
        self.files.fail = "" if removes else "remove"
        try:
            self.wal.trim(self.watermark, self.next)
        except OSError:
            assert not removes
        self.files.fail = ""

    @rule(frames=st.integers(1, 6))
    def retire(self, frames: int) -> None:
        held = [f for f in self.acknowledged if f.last_position > self.watermark][:frames]
        if held:
            self.watermark = held[-1].last_position
        self.wal.retire(self.watermark)

    @rule(removes=st.booleans())
    def remove_retired(self, removes: bool) -> None:
        self.files.fail = "" if removes else "remove"
        try:
            self.wal.remove_retired()
        except OSError:
            assert not removes
        self.files.fail = ""

    @rule()
    def restart(self) -> None:
        self.wal.close()
        frames, self.next = self._open()
        expected = [f for f in self.acknowledged if f.last_position > self.watermark]
        more = frames[len(expected) :]
        assert frames[: len(expected)] == expected
        # What was refused last may have reached the disk all the same; nothing older comes back.
        assert more == self.refused[: len(more)]
        self.acknowledged += more
        self.refused = []
        last = self.acknowledged[-1].last_position if self.acknowledged else 0
        assert self.next == last + 1


LogMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=25, deadline=None, derandomize=True
)
TestLog = LogMachine.TestCase
