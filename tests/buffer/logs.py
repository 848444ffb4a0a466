"""A log in a folder that tests can fail, damage and read."""

from __future__ import annotations

import errno
from pathlib import Path

from mallard.buffer.frame import encode
from mallard.buffer.wal import LogReport, Wal, read_log, segment_name
from mallard.event import Event, Frame
from mallard.files import Files


class Failing(Files):
    """Real files, but the operations in `fail` raise; a write that fails wrote all the same."""

    def __init__(self) -> None:
        self.fail: set[str] = set()
        self.removed: list[str] = []

    def _check(self, name: str) -> None:
        if name in self.fail:
            raise OSError(errno.EIO, "Input/output error")

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        super().write(descriptor, data, at)
        self._check("write")

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self._check("sync")

    def create(self, path: Path, mode: int = 0o600) -> int:
        self._check("create")
        return super().create(path, mode)

    def sync_folder(self, folder: Path) -> None:
        self._check("sync_folder")
        super().sync_folder(folder)

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._check("close")

    def remove(self, path: Path) -> None:
        self._check("remove")
        if path.parent.name == "wal":
            self.removed.append(path.name)
        super().remove(path)

    def rename(self, source: Path, target: Path) -> None:
        self._check("rename")
        super().rename(source, target)


def make_frame(position: int, name: str = "e", count: int = 1) -> Frame:
    return Frame(position, position * 10, 0, (Event("a.example", 1, name),) * count)


def to_bytes(frame: Frame) -> bytes:
    return b"".join(encode(frame))


class Log:
    """A log in a folder, and what is read from it."""

    def __init__(self, folder: Path, segment_bytes: int = 1_000_000) -> None:
        self.files = Failing()
        self.folder = folder / "wal"
        self.quarantine = folder / "quarantine"
        self._segment_bytes = segment_bytes
        self.reopen(0)

    def reopen(self, watermark: int) -> tuple[list[Frame], LogReport]:
        self.wal = Wal(self.folder, self.files, self._segment_bytes, self.quarantine)
        return self.wal.recover(watermark)

    def append(self, *frames: Frame) -> None:
        self.wal.append(b"".join(map(to_bytes, frames)), frames[0].first_position, sync=True)

    def read(self, after: int = 0) -> tuple[list[Frame], LogReport]:
        report = LogReport()
        return list(read_log(self.folder, self.files, after, report)), report

    def trim(self, watermark: int, next_position: int) -> None:
        self.wal.trim(watermark, next_position)
        self.wal.remove_retired()

    def names(self) -> list[str]:
        return self.files.names(self.folder)

    def missed(self) -> list[str]:
        """The segments that would be missed if they were gone."""
        return self.files.names(self.folder.with_name("wal-names"))

    def damage(self, position: int, at: int = -3) -> None:
        path = self.folder / segment_name(position)
        content = bytearray(path.read_bytes().rstrip(b"\0"))  # no room behind it
        content[at] ^= 4
        path.write_bytes(bytes(content))
