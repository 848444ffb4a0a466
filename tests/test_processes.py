from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mallard.processes import (
    NICENESS,
    TURN_NS,
    lacks_idle_time,
    pausing,
    processor_seconds,
    start,
    take_idle_time,
    take_short_turns,
)

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


SPIN = """
from mallard.processes import take_idle_time
%s
print("spins", flush=True)
while True:
    pass
"""


@needs_linux
def test_who_wants_a_core_in_idle_time_and_hardly_had_one_lacks_it() -> None:
    with start(SPIN % "take_idle_time()") as process:
        assert process.stdout
        process.stdout.readline()
        assert lacks_idle_time(process.pid, 0.0, 30.0)
        assert lacks_idle_time(process.pid, 3.0, 30.0)
        assert not lacks_idle_time(process.pid, 3.1, 30.0)
        os.kill(process.pid, signal.SIGSTOP)  # wants none
        os.waitpid(process.pid, os.WUNTRACED)
        assert not lacks_idle_time(process.pid, 0.0, 30.0)
        process.kill()
    assert not lacks_idle_time(process.pid, 0.0, 30.0)
    assert processor_seconds(process.pid) == 0.0


@needs_linux
def test_who_takes_no_idle_time_lacks_none() -> None:
    with start(SPIN % "") as process:
        assert process.stdout
        process.stdout.readline()
        assert not lacks_idle_time(process.pid, 0.0, 30.0)
        process.kill()


def test_where_the_system_hides_processes_none_lacks_idle_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hide(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.read_text", hide)
    assert processor_seconds(os.getpid()) == 0.0
    assert not lacks_idle_time(os.getpid(), 0.0, 30.0)


PAUSES = """
import os, resource, signal, time
from mallard.processes import pausing

def slept():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

with pausing():
    before = slept()
    while slept() < before + 20:
        assert time.process_time() < 20
assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
try:
    with pausing():
        raise ValueError
except ValueError:
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
os.kill(os.getpid(), signal.SIGALRM)
print("paused", flush=True)
"""


@needs_linux
def test_what_computes_pauses_again_and_again_until_it_is_done() -> None:
    with start(PAUSES) as process:
        assert process.stdout
        assert process.stdout.read() == b"paused\n"
    assert process.returncode == 0


def test_other_systems_have_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)  # not to be called
    with pausing():
        pass


@needs_linux
def test_processor_time_is_that_of_all_threads() -> None:
    before, own = processor_seconds(os.getpid()), os.times()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(sum, range(20_000_000)).result()
    after, now = processor_seconds(os.getpid()), os.times()
    spent = now.user + now.system - own.user - own.system
    assert spent > 0.06
    assert after - before == pytest.approx(spent, abs=0.03)


def test_a_machine_without_them_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    monkeypatch.setattr("ctypes.CDLL", None)  # not to be called
    take_short_turns()
