from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mallard.errors import StorageError
from mallard.files import CHUNK_BYTES, Files, FolderLock


class Watched(Files):
    """Real files that note each step."""

    def __init__(self, fail_at: str = "") -> None:
        self.steps: list[str] = []
        self._fail_at = fail_at

    def _note(self, step: str) -> None:
        self.steps.append(step)
        if step == self._fail_at:
            raise OSError(5, "Input/output error")

    def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
        self._note("write")
        super().write(descriptor, data, at)

    def sync(self, descriptor: int) -> None:
        self._note("sync")
        super().sync(descriptor)

    def close(self, descriptor: int) -> None:
        self._note("close")
        super().close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        self._note("sync_folder")
        super().sync_folder(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_file_is_written_synced_renamed_and_its_folder_synced(tmp_path: Path) -> None:
    files = Watched()
    files.replace(tmp_path / "secret", b"old")
    files.replace(tmp_path / "secret", b"new")
    assert files.steps == ["write", "sync", "close", "rename", "sync_folder"] * 2
    assert files.names(tmp_path) == ["secret"]
    assert files.read(tmp_path / "secret") == b"new"
    assert mode(tmp_path / "secret") == 0o600


@pytest.mark.parametrize("step", ["write", "sync", "rename"])
def test_a_replacement_that_fails_leaves_the_old_file_and_no_open_descriptor(
    step: str, tmp_path: Path
) -> None:
    Files().replace(tmp_path / "secret", b"old")
    before = open_descriptors()
    with pytest.raises(OSError, match="Input/output"):
        Watched(step).replace(tmp_path / "secret", b"new")
    assert Files().read(tmp_path / "secret") == b"old"
    assert open_descriptors() == before


def test_a_write_goes_on_until_every_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    Files().replace(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_folder_is_its_owners_alone_and_making_it_again_is_no_error(tmp_path: Path) -> None:
    Files().make_folder(tmp_path / "data")
    Files().make_folder(tmp_path / "data")
    assert mode(tmp_path / "data") == 0o700


def test_the_names_of_new_folders_are_synced_and_those_of_old_ones_are_left(tmp_path: Path) -> None:
    synced: list[Path] = []

    class Noting(Files):
        def sync_folder(self, folder: Path) -> None:
            synced.append(folder)

    Noting().make_folder(tmp_path / "data" / "wal")
    assert synced == [tmp_path, tmp_path / "data"]
    Noting().make_folder(tmp_path / "data" / "wal")
    assert len(synced) == 2


def test_the_parents_of_a_new_folder_are_their_owners_alone_too(tmp_path: Path) -> None:
    Files().make_folder(tmp_path / "one" / "two" / "three")
    for folder in ("one", "one/two", "one/two/three"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_a_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (CHUNK_BYTES + 1))
    assert [len(piece) for piece in Files().chunks(path)] == [CHUNK_BYTES, 1]
    with pytest.raises(FileNotFoundError):
        list(Files().chunks(tmp_path / "none"))


def test_a_missing_folder_has_no_names_and_a_missing_file_is_removed_already(
    tmp_path: Path,
) -> None:
    assert Files().names(tmp_path / "nothing") == []
    Files().remove(tmp_path / "nothing")


def test_an_existing_file_is_emptied_when_it_is_created_anew(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    descriptor = Files().create(tmp_path / "a")
    Files().write(descriptor, b"n")
    Files().close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"n"


def test_a_folder_has_one_server_and_the_second_is_told_which(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(StorageError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path)
    lock.release()
    FolderLock(tmp_path).release()


def test_a_folder_is_free_when_what_a_dead_server_left_at_work_has_ended(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    program = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[lock.descriptor],
    ) as left:
        assert left.stdin
        assert left.stdout
        left.stdout.readline()
        lock.release()
        with pytest.raises(StorageError, match=f"process {os.getpid()}"):
            FolderLock(tmp_path)  # who took it lives
        with subprocess.Popen(["true"]) as gone:
            pass
        (tmp_path / "lock").write_text(f"{gone.pid}\n")
        threading.Timer(0.05, left.stdin.close).start()
        FolderLock(tmp_path).release()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_free_bytes_are_those_of_the_disk_below_the_folder(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 < Files().free_bytes(tmp_path) <= status.f_blocks * status.f_frsize


def test_a_file_that_is_set_aside_never_replaces_one_that_was_before(tmp_path: Path) -> None:
    for content in (b"1", b"2", b"3"):
        (tmp_path / "a").write_bytes(content)
        Files().set_aside(tmp_path / "a", tmp_path / "quarantine")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "quarantine").iterdir()}
    assert kept == {"a": b"1", "a.2": b"2", "a.3": b"3"}
    assert not (tmp_path / "a").exists()


def test_a_tree_is_every_file_by_its_path_and_no_linked_folder(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    for path in ("b", "a/c", "a/empty/deep/d"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    elsewhere.mkdir()
    (elsewhere / "e").touch()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "e")
    assert Files().tree(folder) == ["a/c", "a/empty/deep/d", "b", "file"]
    assert Files().tree(tmp_path / "missing") == []
