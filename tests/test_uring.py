"""Syncs by the kernel itself, where it lets these tests; `tests.syncs` stands in elsewhere."""

from __future__ import annotations

import gc
import os
import select
import sys
from pathlib import Path

import pytest

from mallard.uring import Syncs


@pytest.fixture
def syncs() -> Syncs:
    try:
        return Syncs()
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    return os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def test_a_sync_says_when_it_is_over(syncs: Syncs, descriptor: int) -> None:
    over = select.poll()
    over.register(syncs.descriptor, select.POLLIN)
    for _ in range(20):  # around the rings several times
        os.write(descriptor, b"text")
        assert over.poll(0) == []
        syncs.begin(descriptor)
        assert over.poll(30_000) == [(syncs.descriptor, select.POLLIN)]
        syncs.end()
    os.close(descriptor)


def test_a_sync_that_fails_raises_its_error_when_it_is_over(syncs: Syncs, descriptor: int) -> None:
    os.close(descriptor)
    syncs.begin(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncs.end()


def test_what_the_kernel_did_not_take_is_not_taken_for_the_next(
    syncs: Syncs, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as busy, pytest.raises(BlockingIOError):
        busy.setattr(syncs, "_checked", refuse)
        syncs.begin(descriptor)
    for end in os.pipe():  # which cannot be synced
        syncs.begin(end)
        with pytest.raises(OSError, match="Invalid argument"):
            syncs.end()
        os.close(end)
    syncs.begin(descriptor)
    syncs.end()


def test_no_descriptor_is_left_behind() -> None:
    def opened() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    try:
        before = opened()
        Syncs()
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    assert opened() == before


def test_other_systems_than_linux_have_no_such_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="only Linux"):
        Syncs()
