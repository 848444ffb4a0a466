from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mallard.processes import NICENESS, TURN_NS, take_idle_time, take_short_turns

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275, "riscv64": 275}
_KNOWN = sys.platform == "linux" and platform.machine() in _SCHED_GETATTR
needs_linux = pytest.mark.skipif(not _KNOWN, reason="only Linux has turns, and numbers for them")


def attributes() -> tuple[int, ...]:
    """Of this thread: size, policy, flags, nice, priority, turn, ..., as sched_getattr(2) says."""
    size = struct.calcsize("=IIQiIQQQ")
    read = ctypes.create_string_buffer(size)
    call = ctypes.CDLL(None, use_errno=True).syscall
    assert call(_SCHED_GETATTR[platform.machine()], 0, read, size, 0) == 0
    return struct.unpack("=IIQiIQQQ", read.raw)


def in_a_thread_of_its_own() -> tuple[int, ...]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(attributes).result()


@needs_linux
def test_a_thread_takes_short_turns_and_those_it_starts_do_not() -> None:
    def take() -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        os.setpriority(os.PRIO_PROCESS, 0, 3)  # of this thread alone
        before = attributes()
        take_short_turns()
        return before, attributes(), in_a_thread_of_its_own()

    with ThreadPoolExecutor(1) as pool:
        before, after, inner = pool.submit(take).result()
    assert after[1] == before[1]
    assert after[3] == before[3] == 3
    assert after[5] == (TURN_NS if before[5] else 0)  # 0 before Linux 6.12, which has none
    assert inner[5] == before[5]
    assert in_a_thread_of_its_own()[5] == before[5]


@needs_linux
def test_a_thread_of_another_class_stays_in_it() -> None:
    def take() -> tuple[tuple[int, ...], tuple[int, ...]]:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        before = attributes()
        take_short_turns()
        return before, attributes()

    with ThreadPoolExecutor(1) as pool:
        before, after = pool.submit(take).result()
    assert after == before


@needs_linux
def test_idle_time_is_taken_by_a_thread_and_by_those_it_starts() -> None:
    def take() -> tuple[int, int]:
        take_idle_time()
        return attributes()[1], in_a_thread_of_its_own()[1]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(take).result() == (os.SCHED_IDLE, os.SCHED_IDLE)


def test_where_no_time_is_idle_a_process_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append, raising=False)
    monkeypatch.delattr(os, "SCHED_IDLE", raising=False)
    take_idle_time()
    assert asked == [NICENESS]


def test_a_machine_without_them_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    monkeypatch.setattr("ctypes.CDLL", None)  # not to be called
    take_short_turns()
