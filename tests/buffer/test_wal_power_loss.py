"""A log after the power went: of what was written since the last sync, any sectors are there."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.buffer.frame import encode
from mallard.buffer.wal import LogReport, Wal, read_log
from mallard.event import Frame
from mallard.files import Files
from tests.buffer.logs import make_frame

SECTOR_BYTES = 512  # what a disk writes wholly or not at all
Pick = Callable[[int], int]


class Disk(Files):
    """Real files that know what each held when it was synced last, and since.

    fail: the operations that raise; a write that does has happened by half.
    """

    def __init__(self) -> None:
        self.fail: set[str] = set()
        self._paths: dict[int, Path] = {}
        self._states: dict[Path, list[bytes]] = defaultdict(lambda: [b""])
        self._new: set[Path] = set()  # whose names are not synced

    def create(self, path: Path, mode: int = 0o600) -> int:
        if not path.exists():
            self._new.add(path)
        descriptor = super().create(path, mode)
        self._paths[descriptor] = path
        self._states[path] = [b""]
        return descriptor

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        failing = "write" in self.fail
        super().write(descriptor, data[: len(data) // 2] if failing else data, at)
        path = self._paths[descriptor]
        self._states[path].append(path.read_bytes())
        if failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    def sync(self, descriptor: int) -> None:
        if "sync" in self.fail:
            raise OSError(errno.EIO, "Input/output error")
        path = self._paths[descriptor]
        self._states[path] = [path.read_bytes()]

    def sync_folder(self, folder: Path) -> None:
        if "sync_folder" in self.fail:
            raise OSError(errno.EIO, "Input/output error")
        self._new = {path for path in self._new if path.parent != folder}

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._states.pop(path, None)
        self._new.discard(path)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._states[target] = self._states.pop(source)
        self._new.discard(source)

    def lose_power(self, pick: Pick) -> None:
        """Leave of names, lengths and sectors that were not synced what `pick` takes, one of n."""
        for path in sorted(self._new):
            if pick(2):
                self.remove(path)
        self._new = set()
        for path, states in self._states.items():
            if len(states) > 1:
                content = left(states, pick)
                path.write_bytes(content)
                self._states[path] = [content]


def left(states: Sequence[bytes], pick: Pick) -> bytes:
    length = len(states[pick(len(states))])
    sectors = []
    for at in range(0, length, SECTOR_BYTES):
        kinds = sorted(
            {state[at : at + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0") for state in states}
        )
        sectors.append(kinds[pick(len(kinds))] if len(kinds) > 1 else kinds[0])
    return b"".join(sectors)[:length]


class Life:
    """A log, and what became of each frame that it was given."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.disk = Disk()
        self.folder = folder / "wal"
        self._segment_bytes = segment_bytes
        self.acknowledged: list[Frame] = []
        self.open: list[list[Frame]] = []  # groups that are neither acknowledged nor disowned
        self.ends: dict[str, int] = defaultdict(int)  # of what is acknowledged in each segment
        self.holes: list[tuple[int, int]] = []
        self.next = 1
        self.start()

    def start(self) -> None:
        quarantine = self.folder.with_name("quarantine")
        self.wal = Wal(self.folder, self.disk, self._segment_bytes, quarantine)
        frames, report = self.wal.recover(0)
        self.check(frames, report)
        self.acknowledged = frames  # from now on they have to stay
        self.open = []
        self.holes = report.missing
        self.next = report.next_position

    def append(self, sizes: Sequence[int], fail: str = "") -> None:
        """Append a group; where that fails, disown it, as long as the same operations fail."""
        self.disk.fail = set(fail.split())
        if not self._append(sizes):
            with contextlib.suppress(OSError):
                self.wal.disown(self.next)
                self.open = []
        self.disk.fail = set()

    def append_until_the_power_goes(self, sizes: Sequence[int], pick: Pick) -> None:
        self.disk.fail = {"sync"}
        assert not self._append(sizes)
        self.disk.fail = set()
        self.disk.lose_power(pick)

    def _append(self, sizes: Sequence[int]) -> bool:
        group, position = [], self.next
        for size in sizes:
            group.append(make_frame(position, "x" * size, 1 + size % 3))
            position = group[-1].last_position + 1
        data = b"".join(piece for frame in group for piece in encode(frame))
        try:
            self.wal.append(data, self.next, sync=True)
        except OSError:
            self.open.append(group)
            return False
        self.open = []
        self.acknowledged += group
        self.next = position
        self.ends[self.disk.names(self.folder)[-1]] += len(data)
        return True

    def read(self) -> tuple[list[Frame], LogReport]:
        report = LogReport()
        return list(read_log(self.folder, self.disk, 0, report)), report

    def check(self, frames: list[Frame], report: LogReport) -> None:
        """Every acknowledged frame is there once, in order; what is more is of one open group."""
        kept = len(self.acknowledged)
        assert frames[:kept] == self.acknowledged
        assert not frames[kept:] or any(is_part(frames[kept:], group) for group in self.open)
        assert report.next_position == (frames[-1].last_position + 1 if frames else 1)
        assert not report.gone
        assert not report.unusable
        assert all(damage.offset >= self.ends[name] for name, damage in report.damaged)
        known = len(self.holes)
        assert report.missing[:known] == self.holes
        assert all(first >= self.next for first, _ in report.missing[known:])


def is_part(some: Sequence[Frame], group: Sequence[Frame]) -> bool:
    rest = iter(group)
    return all(frame in rest for frame in some)


sizes = st.lists(st.integers(0, 1_500), min_size=1, max_size=4)
fails = st.sampled_from(["", "", "", "write", "sync", "sync_folder", "sync sync_folder"])
groups = st.lists(st.tuples(sizes, fails), max_size=6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    before=groups,
    last=st.lists(st.integers(0, 1_500), min_size=1, max_size=6),
    after=groups,
    segment_bytes=st.sampled_from([1, 1_500, 1 << 20]),
    seed=st.integers(0, 1 << 32),
)
def test_after_a_power_loss_what_was_acknowledged_is_read_once_and_else_whole_frames_alone(
    before: list[tuple[list[int], str]],
    last: list[int],
    after: list[tuple[list[int], str]],
    segment_bytes: int,
    seed: int,
) -> None:
    pick = Random(seed).randrange
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), segment_bytes)
        for group, fail in before:
            life.append(group, fail)
        life.append_until_the_power_goes(last, pick)
        life.check(*life.read())
        life.wal.close()
        life.start()
        for group, fail in after:
            life.append(group, fail)
        life.check(*life.read())
        life.append_until_the_power_goes(last, pick)
        life.wal.close()
        life.start()
        life.wal.trim(life.next - 1, life.next)
        life.wal.remove_retired()
        assert life.disk.names(life.folder) == []
